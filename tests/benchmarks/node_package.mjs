// The service's own @grantex/destinations, as its README shows it: one process, its Splunk destination, once for
// each HEC. Arguments: the built package, the feed's URL, events of a batch, seconds that they wait, HECs' URLs.
const [packagePath, feed, maxEvents, maxAge, ...hecs] = process.argv.slice(2);
const { EventSource, SplunkDestination } = await import(packagePath);

const source = new EventSource({ url: feed, apiKey: process.env.BENCH_FEED_KEY });
for (const hecUrl of hecs) {
  source.addDestination(
    new SplunkDestination({
      hecUrl,
      hecToken: process.env.BENCH_HEC_TOKEN,
      batchSize: Number(maxEvents),
      flushIntervalMs: Number(maxAge) * 1000,
    }),
  );
}
process.on('SIGTERM', () => process.exit(0));
await source.start();
