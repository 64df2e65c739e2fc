"""Detections about this job itself and about the service, from metrics: Prometheus only."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Language, Rule, Threshold

NOT_EVENTS: dict[Language, str] = {
    "splunk": "It is about the exporter, whose metrics are Prometheus'; no event speaks of it.",
    "datadog": "The same; the Datadog Agent can scrape them (its OpenMetrics check).",
    "bigquery": "The same.",
    "athena": "The same.",
}

FEED_DOWN = Detection(
    name="feed_down",
    title="Feed down, gap open, nothing heard",
    why="What the service publishes while nobody listens is gone for good. Silence of events is no loss; "
    "silence of the connection is: keepalives come every 30 s.",
    todo="Open the status page: it names the reason (key, proxy, slots, service). A gap is on record with "
    "its bounds; a webhook or the service's ledger says what fell into it.",
    severity="critical",
    thresholds={
        "silent": Threshold(90, "seconds without a byte; three keepalives"),
        "proof": Threshold(900, "seconds that the ledger's proof may be behind"),
    },
    rules=(
        Rule(
            "GrantexExporterAbsent",
            "absent(grantex_feed_connections)",
            "3m",
            "critical",
            "Nobody exports: no grantex-beam is scraped.",
            "Is it running (`systemctl status grantex-beam`, `kubectl get pods`)? How it ended is its "
            "exit code and the last lines of its log: 2 is a setting, 3 the preflight, 1 is worth a "
            "new start. If it runs: Prometheus cannot reach `--status_port`; see its targets, and "
            "`--status_host`.",
        ),
        Rule(
            "GrantexFeedDown",
            "grantex_feed_connections == 0 unless on (instance) grantex_standby == 1",
            "2m",
            "critical",
            "No stream of the feed is open: what is published now is lost.",
            "Open the page: each connection says why it waits, and [the feed's messages](#the-feed) "
            "what to do about it. Nothing is lost of what was received; what is published until a "
            "stream is live again is a gap on record. When it is over: `grantex-beam reconcile` for "
            "that time.",
        ),
        Rule(
            "GrantexFeedSilent",
            "time() - grantex_feed_last_heard_timestamp_seconds > @{silent}"
            " and grantex_feed_last_heard_timestamp_seconds > 0"
            " unless on (instance) grantex_standby == 1",
            "1m",
            "critical",
            "Not one byte from the feed for {{ $value | humanizeDuration }}; keepalives come every 30 s.",
            "A stream is open and dead. It is replaced by itself after 40 s, so this lasts only when "
            "what replaces it is dead as well: look for a proxy or load balancer that holds answers "
            "back or forgets idle connections. `--feed_transport=both` reads by a second kind of "
            "stream.",
        ),
        Rule(
            "GrantexFeedGapOpen",
            "grantex_feed_gap_open == 1",
            "1m",
            "critical",
            "A gap is open: events of this moment may be missed.",
            "No stream of ours is heard now: as GrantexFeedDown. A job that was just started has a "
            "gap open until its first stream is live, within half a minute on a quiet feed.",
        ),
        Rule(
            "GrantexFeedGap",
            "increase(grantex_feed_gaps_total[15m]) > 0",
            "0m",
            "warning",
            "A gap was recorded: ask the ledger what fell into it (reconcile).",
            "Ask what fell into it: with `--ledger_webhook=auto` the page says so by itself, else run "
            "`grantex-beam reconcile` over its time (it is a dead letter of the feed, `feed_gap`, "
            "with bounds and reason). Often? Two connections, a standby and the webhook receiver each "
            "close some: [operate.md](operate.md#two-connections), "
            "[deploy.md](deploy.md#two-processes-no-blind-moment).",
        ),
        Rule(
            "GrantexFeedFewConnections",
            "grantex_feed_connections < grantex_feed_connections_wanted",
            "15m",
            "warning",
            "Open connections: {{ $value }}, fewer than wanted; the next cut may be a gap.",
            "Nothing is missing yet. The page says why the other stream is not open: most often all "
            "five slots of the account are taken by other programs with this key, or the plan's "
            "requests are used up.",
        ),
        Rule(
            "GrantexEventsMissing",
            "increase(grantex_ledger_missing_total[1h]) > 0",
            "0m",
            "critical",
            "The service's ledger names events that never came.",
            "The service published them and no stream or webhook brought them. Each is a dead letter "
            "of the feed (`missing`) with id, type and time; the ledger has no payload. Look at those "
            "ids in the service's console. Set up the [webhook receiver](deploy.md#webhooks): it is "
            "the only second way to a payload.",
        ),
        Rule(
            "GrantexProofOld",
            "time() - grantex_ledger_proven_until_timestamp_seconds > @{proof}"
            " and grantex_ledger_proven_until_timestamp_seconds > 0",
            "5m",
            "warning",
            "For {{ $value | humanizeDuration }} nobody has compared with the service's ledger.",
            "The ledger cannot be read, or not fast enough. The page has the reason: the webhook was "
            "deleted (choose another, `--ledger_webhook`), the key may not read it, or the plan has "
            "too few requests a minute for this many events.",
        ),
    ),
    without=NOT_EVENTS,
)

EXPORTER_TROUBLE = Detection(
    name="exporter_trouble",
    title="Delivery late, circuit open, dead letters, journal full",
    why="Events are safe in the journal, but not where they are looked for; past the journal's bound the "
    "feed is not read any more.",
    todo="The status page has the destination's state and its last error; docs/runbook.md what to do.",
    severity="critical",
    thresholds={
        "late": Threshold(300, "seconds that the oldest event of a destination may wait"),
        "very_late": Threshold(1800, "seconds, critical"),
        "restarts": Threshold(2, "restarts of a destination within 15 minutes"),
    },
    rules=(
        Rule(
            "GrantexDeliveryLate",
            "grantex_delivery_lag_seconds > @{late}",
            "5m",
            "warning",
            "{{ $labels.destination }}: the oldest event has waited {{ $value | humanizeDuration }}.",
            "Open the page: the destination's state says what it is. `retrying` and `down` heal by "
            "themselves; `needs you` says what to do; `behind` means that it takes events more slowly "
            "than they come: see its requests' time, raise its `--…_max_events`, or its own limits.",
        ),
        Rule(
            "GrantexDeliveryVeryLate",
            "grantex_delivery_lag_seconds > @{very_late}",
            "5m",
            "critical",
            "{{ $labels.destination }}: the oldest event has waited {{ $value | humanizeDuration }}.",
            "As GrantexDeliveryLate. Look when the journal will be full (`grantex_journal_bytes` of "
            "`grantex_journal_max_bytes`): past that the feed is not read. `--journal_max_bytes` can "
            "be raised at a restart.",
        ),
        Rule(
            "GrantexDestinationDown",
            "grantex_circuit_open == 1",
            "10m",
            "critical",
            "{{ $labels.destination }} does not take events; they wait in the journal.",
            "See the service's own status page and what stands between it and here. It is probed all "
            "the time, and everything that waits is delivered when it is back; other destinations do "
            "not notice. A job on a cluster keeps it in the runner's state.",
        ),
        Rule(
            "GrantexDestinationNeedsYou",
            'grantex_destination_state{state="needs_you"} == 1',
            "5m",
            "critical",
            "{{ $labels.destination }} does not heal by itself: the status page says what to do.",
            "Read the sentence on the page: it is one of [the messages below](#the-messages), with "
            "what to do. A secret that is changed in its file or secret manager is read again without "
            "a restart; a flag needs one.",
        ),
        Rule(
            "GrantexDeadLetters",
            "increase(grantex_events_dead_lettered_total[15m]) > 0",
            "0m",
            "warning",
            "{{ $labels.destination }} ({{ $labels.stage }}): events were put aside; see the dead letters.",
            "`grantex_dead_letters_total` has the causes, `<state_dir>/dead_letters` the events "
            "([what each cause means](#dead-letters)). Stage `feed`: gaps and frames that are no "
            "events. Stage `write`: put the cause right, then `grantex-beam replay "
            "--from=dead_letters:…`.",
        ),
        Rule(
            "GrantexDestinationRestarts",
            "increase(grantex_lane_restarts_total[15m]) > @{restarts}",
            "0m",
            "warning",
            "{{ $labels.destination }} fails and starts again; the log has the traceback.",
            "An error that nobody foresaw; events are kept and the lane starts again. The log has the "
            "traceback once. If you did not write the destination yourself, report it with that "
            "traceback.",
        ),
        Rule(
            "GrantexJournalFilling",
            "grantex_journal_bytes / grantex_journal_max_bytes > 0.8",
            "5m",
            "warning",
            "The journal is {{ $value | humanizePercentage }} full; past its bound the feed is not read.",
            "A destination does not take its events (see which: `grantex_events_pending`). Bring it "
            "back, or raise `--journal_max_bytes` if the disk has room. What waits for a destination "
            "that was removed for good goes with `--forget_destination=NAME`.",
        ),
        Rule(
            "GrantexJournalFull",
            "grantex_journal_bytes / grantex_journal_max_bytes > 0.95",
            "1m",
            "critical",
            "The journal is {{ $value | humanizePercentage }} full: reading pauses, which is a gap.",
            "The feed is not read, or will not be in a moment: this is a gap. As "
            "GrantexJournalFilling, now. Nothing that was received is dropped.",
        ),
    ),
    without=NOT_EVENTS,
)

DETECTIONS = (FEED_DOWN, EXPORTER_TROUBLE)

# The service's own /metrics, with the thresholds that its guide gives. What the values of `status` are called
# differs between its versions, so the words for success are counted out.
_OK = 'status=~"success|succeeded|ok|delivered|2.."'
_TOKENS = (
    f"1 - sum(rate(grantex_token_exchange_total{{{_OK}}}[5m])) / sum(rate(grantex_token_exchange_total[5m]))"
)
_WEBHOOKS = (
    f"sum(rate(grantex_webhook_deliveries_total{{{_OK}}}[15m])) "
    "/ sum(rate(grantex_webhook_deliveries_total[15m]))"
)
_AUTHORIZE = "histogram_quantile(0.99, sum by (le) (rate(grantex_authorize_duration_seconds_bucket[5m])))"
_ANOMALIES = "sum(increase(grantex_anomalies_detected_total[1h]))"
_REFUSED = '60 * sum(rate(grantex_http_request_duration_seconds_count{status_code="429"}[5m]))'


def _pair(
    alert: str, expr: str, sign: str, warning: str, critical: str, summary: str, todo: str
) -> tuple[Rule, Rule]:
    return (
        Rule(alert, f"{expr} {sign} {warning}", "5m", "warning", summary, todo),
        Rule(f"{alert}Critical", f"{expr} {sign} {critical}", "5m", "critical", summary, todo),
    )


SERVICE_RULES = (
    *_pair(
        "GrantexTokenExchangeFails",
        _TOKENS,
        ">",
        "0.05",
        "0.15",
        "{{ $value | humanizePercentage }} of token exchanges fail.",
        "Agents do not get their tokens. See the service's own status and log; a revoked or suspended "
        "grant fails on purpose, so look at `revocation_spike` too.",
    ),
    *_pair(
        "GrantexWebhooksFail",
        _WEBHOOKS,
        "<",
        "0.98",
        "0.95",
        "Only {{ $value | humanizePercentage }} of webhook deliveries succeed.",
        "Receivers do not answer 200 within 10 s. If ours is among them, `grantex_webhooks_total` has "
        "what it answered.",
    ),
    *_pair(
        "GrantexAuthorizeSlow",
        _AUTHORIZE,
        ">",
        "0.5",
        "2",
        "One in a hundred authorizations takes {{ $value | humanizeDuration }} or more.",
        "The service is slow; nothing here can help. Delivery is not affected.",
    ),
    *_pair(
        "GrantexAnomalies",
        _ANOMALIES,
        ">",
        "5",
        "10",
        "{{ $value }} anomalies within an hour.",
        "Open them in the service; [anomalies](#anomalies) has what the events say.",
    ),
    *_pair(
        "GrantexRateLimited",
        _REFUSED,
        ">",
        "50",
        "200",
        "{{ $value }} requests a minute answered 429.",
        "Somebody asks more than the plan allows. The job's own share is the ledger's walk: four "
        "fifths of the key's requests at most.",
    ),
)
