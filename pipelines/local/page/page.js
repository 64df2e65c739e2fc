// Asks for /status.json every second and shows it; charts.js draws. All text goes through textContent; nothing is
// ever HTML.
"use strict";

const EVERY = 1000; // ms between two looks
const PATIENCE = 5000; // ms until an unanswered look counts as failed
const RATE_SECONDS = 30; // rates are over so long, as batches come in bursts
const RATE_AFTER = 5; // and are not told before so long

const $ = (id) => document.getElementById(id);
const looks = []; // {at, received, delivered: {name: n}}, oldest first
const shown = { destinations: new Map(), work: new Map(), books: new Map() };
let lastLook = 0; // Date.now() of the last answer
let timer = 0;

// Words

const number = (n) => Math.round(n).toLocaleString("en");
const plural = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

function span(seconds) {
  if (seconds < 0.05) return "0 s";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const ago = (then, now) => (then === null ? "never" : `${span(Math.max(0, now - then))} ago`);
const rate = (n) => (n === null ? "…" : n >= 10 || n === 0 ? `${number(n)}/s` : `${n.toFixed(1)}/s`);

function bytes(n) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

function clock(epoch) {
  const at = new Date(epoch * 1000);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

// The page's nodes

function node(tag, attributes = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function resize(list, n, made) { // to so many children; those that are there stay
  while (list.children.length > n) list.lastChild.remove();
  while (list.children.length < n) list.append(made());
}

function put(where, text) { // only when it changed, so that selections stay and nothing is announced twice
  if (where.textContent !== text) where.textContent = text;
}

function mark(where, level) {
  if (level) { if (where.dataset.level !== level) where.dataset.level = level; } else delete where.dataset.level;
}

function count(where, n, text = number(n)) {
  put(where, text);
  where.classList.toggle("zero", n === 0);
}

// Rates

function remember(status) {
  const now = { at: status.at, received: status.feed.received, delivered: {} };
  for (const each of status.destinations) now.delivered[each.name] = each.books.delivered;
  const last = looks[looks.length - 1];
  if (last && (last.at > now.at || last.received > now.received)) looks.length = 0; // another run
  looks.push(now);
  while (looks.length > 2 && looks[0].at < now.at - RATE_SECONDS) looks.shift();
}

function perSecond(read) {
  const first = looks.find((look) => read(look) !== undefined);
  const last = looks[looks.length - 1];
  if (!first || last.at - first.at < RATE_AFTER) return null;
  return Math.max(0, read(last) - read(first)) / (last.at - first.at);
}

// The feed

const facts = new Map();

function fact(title, text, level = "") {
  if (!facts.has(title)) {
    const value = node("dd");
    $("feed-facts").append(node("div", {}, [node("dt", {}, [title]), value]));
    facts.set(title, value);
  }
  put(facts.get(title), text);
  mark(facts.get(title), level);
}

function noFact(title) {
  facts.get(title)?.parentNode.remove();
  facts.delete(title);
}

function latest(connections, field) {
  return connections.reduce((most, each) => (each[field] !== null && each[field] > (most ?? 0) ? each[field] : most), null);
}

function showProof(proof) {
  $("proof").hidden = !proof;
  if (!proof) return;
  fact("Proven until", proof.until === null ? "nothing yet" : clock(proof.until), proof.failure ? "watch" : "");
  fact("Missing", number(proof.missing - proof.found), proof.missing > proof.found ? "trouble" : "");
  const rest = proof.not_covered.length ? ` The ledger of webhook ${proof.webhook} has no ${proof.not_covered.join(", ")}.` : "";
  put($("proof"), `${proof.says}${proof.failure && !proof.says.includes(proof.failure) ? ` ${proof.failure}` : ""}${rest}`);
}

// What was answered with 200; a wrong method or path is a probe's.
const TAKEN = ["accepted", "duplicate", "filtered", "not_an_event"];
const PROBES = ["method", "path"];

function showWebhooks(counts) {
  if (!counts) return noFact("Webhooks");
  const sum = (wanted) => Object.keys(counts).filter(wanted).reduce((total, name) => total + counts[name], 0);
  const refused = sum((name) => !TAKEN.includes(name) && !PROBES.includes(name));
  fact("Webhooks", `${number(sum((name) => TAKEN.includes(name)))} taken, ${number(refused)} refused`, refused ? "watch" : "");
}

function showJournal(held, most, fullAt, at) {
  const part = most ? held / most : 0;
  const level = part > 0.95 ? "trouble" : part > 0.8 ? "watch" : "";
  fact("Journal", part >= 0.01 ? `${bytes(held)}, ${Math.round(100 * part)} % full` : bytes(held), level);
  if (fullAt === null) return noFact("Full");
  fact("Full", `in about ${span(fullAt - at)}`, fullAt - at < 3600 ? "trouble" : "watch");
}

function showFeed({ feed, at, journal_bytes: held, journal_max_bytes: most, journal_full_at: fullAt, proof, standby }) {
  if (standby) {
    fact("Held", `${plural(standby.events, "event")}, ${bytes(standby.bytes)} of ${bytes(standby.max_bytes)}`);
    fact("Nothing missing for", standby.reaches_back_to === null ? "" : span(at - standby.reaches_back_to));
  } else {
    noFact("Held");
    noFact("Nothing missing for");
  }
  fact("Received", number(feed.received));
  fact("Rate", rate(perSecond((look) => look.received) ?? newest(past?.received)));
  fact("Last event", ago(latest(feed.connections, "last_event_at"), at));
  fact("Last sign of life", ago(latest(feed.connections, "last_heard_at"), at));
  fact("Repeats", number(feed.duplicates));
  fact("Unreadable", number(feed.dead_letters), feed.dead_letters ? "watch" : "");
  fact("Gaps", feed.gap_open ? `${number(feed.gaps)}, one open` : number(feed.gaps), feed.gap_open ? "trouble" : "");
  showJournal(held, most, fullAt, at);
  showWebhooks(feed.webhooks);
  showProof(proof);
  const list = $("connections");
  resize(list, feed.connections.length,
    () => node("li", {}, [node("div", {}, [node("span"), node("span", { class: "more" })])]));
  feed.connections.forEach((each, index) => {
    const [what, more] = list.children[index].firstChild.children;
    const name = feed.connections.length > 1 ? `Connection ${index + 1}. ` : "";
    const next = each.next_try === null ? "" : `, next try in ${span(Math.max(0, each.next_try - at))}`;
    const level = { live: "good", waiting: "trouble", paused: "trouble" }[each.phase] || "watch";
    mark(list.children[index], each.state === "suspect" ? "watch" : level);
    put(what, `${name}${each.doing}${next}`);
    const stream = each.age === null ? "" : ` (open for ${span(each.age)}, last heard ${ago(each.last_heard_at, at)})`;
    const lost = each.reconnects ? ` Reconnected ${each.reconnects === 1 ? "once" : `${number(each.reconnects)} times`}` : "";
    put(more, `${stream}${lost && `.${lost}${each.last_problem ? `; last: ${each.last_problem}` : ""}.`}`);
  });
  showGaps(feed, at);
}

function showGaps(feed, at) {
  $("gaps").hidden = feed.gaps === 0;
  if (feed.gaps === 0) return;
  put($("gaps-title"), feed.gaps > feed.latest_gaps.length
    ? `The last ${feed.latest_gaps.length} of ${plural(feed.gaps, "gap")}` : `${plural(feed.gaps, "gap")} on record`);
  const rows = $("gap-rows");
  resize(rows, feed.latest_gaps.length,
    () => node("tr", {}, [node("td"), node("td"), node("td", { class: "n" }), node("td")]));
  feed.latest_gaps.forEach((gap, index) => {
    const [from, to, lasted, why] = rows.children[index].children;
    put(from, clock(gap.since));
    put(to, gap.until === null ? "still open" : clock(gap.until));
    put(lasted, span((gap.until ?? at) - gap.since));
    put(why, gap.reason);
  });
}

// One body of rows for each destination and table

function rowOf(table, name, labels) {
  const known = shown[table];
  if (!known.has(name)) {
    const cells = labels.map(([label, kind]) => node("td", { class: kind, role: "cell", "data-label": label }));
    const title = node("th", { scope: "row", role: "rowheader" }, [node("span", { class: "name" }, [name])]);
    const body = node("tbody", { role: "rowgroup" }, [node("tr", { role: "row" }, [title, ...cells])]);
    known.set(name, { body, cells, title });
    $(table).append(body);
  }
  return known.get(name);
}

function forget(table, names) {
  for (const [name, { body }] of shown[table]) {
    if (!names.has(name)) { body.remove(); shown[table].delete(name); }
  }
}

const DESTINATION = [["State", "state"], ["Delivered", "n"], ["Rate", "n spark"], ["Pending", "n spark"],
  ["Lag", "n spark"], ["Dead letters", "n"]];

function destinationRow(item) {
  const row = rowOf("destinations", item.name, DESTINATION);
  if (row.sparks) return row;
  const [state, , ...rest] = row.cells;
  row.target = node("span", { class: "target" });
  row.title.append(row.target);
  row.state = node("span");
  row.heals = node("span", { class: "heals" });
  state.append(row.state, row.heals);
  row.sparks = rest.slice(0, 3).map((cell) => {
    const made = { value: node("span", { class: "value" }), line: picture(), peak: node("span", { class: "peak" }) };
    cell.append(made.value, made.line, made.peak);
    return made;
  });
  drawDestination(item.name, row);
  return row;
}

function showDestination(item, at) {
  const row = destinationRow(item);
  const [speed, pending, lag] = row.sparks;
  const [state, delivered, , , , dead] = row.cells;
  put(row.target, item.target);
  put(row.state, item.state);
  mark(state, item.level);
  row.body.classList.toggle("first", item.level === "trouble");
  put(row.heals, item.heals_itself ? "heals itself" : "");
  count(delivered, item.books.delivered);
  const perSec = perSecond((look) => look.delivered[item.name]) ?? newest(past?.destinations[item.name]?.delivered);
  count(speed.value, perSec ?? 0, rate(perSec));
  count(pending.value, item.books.pending);
  count(lag.value, item.lag, span(item.lag));
  count(dead, item.books.dead_lettered);
  const said = sayings(item, at);
  if (!row.said && said.length) {
    row.said = node("div", { class: "said-box" });
    row.body.append(node("tr", { class: "said", role: "row" }, [
      node("td", { colspan: "7", role: "cell" }, [row.said])]));
  }
  if (!row.said) return;
  row.said.closest("tr").hidden = said.length === 0;
  mark(row.said, item.level);
  resize(row.said, said.length, () => node("p"));
  said.forEach(([text, kind], index) => {
    put(row.said.children[index], text);
    row.said.children[index].className = kind;
  });
}

function sayings(item, at) {
  const said = [];
  if (item.why) said.push([item.why, ""]);
  const { open, since, next_probe: next } = item.circuit;
  if (open) {
    const when = next > at ? `next try in ${span(next - at)}` : "being tried now";
    said.push([`Left alone since ${clock(since)} (${span(at - since)}), ${when}.`, ""]);
  }
  if (item.to_do) said.push([item.to_do, ""]);
  if (item.last_error && item.last_error !== item.why) {
    said.push([`Last error ${ago(item.last_error_at, at)}: ${item.last_error}`, "when-next"]);
  }
  return said;
}

const WORK = ["Batches in flight", "Batches waiting", "Requests", "Retries", "Possible repeats", "Restarts"]
  .map((label) => [label, "n"]);

function showWork(item) {
  const { cells } = rowOf("work", item.name, WORK);
  [item.batches_in_flight, item.batches_waiting, item.attempts, item.retries, item.unknown, item.restarts]
    .forEach((n, index) => count(cells[index], n));
}

const BOOKS = [["Received", "n"], ["Delivered", "n"], ["Dead-lettered", "n"], ["Filtered", "n filtered"],
  ["Pending", "n"], ["Lost", "n lost"], ["Balanced", "balanced"]];
const SELDOM = ["filtered", "lost"]; // shown when there are any

function showBooks({ name, books }) {
  const { cells } = rowOf("books", name, BOOKS);
  [books.received, books.delivered, books.dead_lettered, books.filtered, books.pending, books.lost]
    .forEach((n, index) => count(cells[index], n));
  put(cells[6], books.balanced ? "balanced" : "not balanced");
  mark(cells[6], books.balanced ? "good" : "trouble");
}

// Dead letters

function showLetters(status) {
  const rows = [["the feed", status.feed.written_dead_letters, status.feed.latest_dead_letters],
    ...status.destinations.map((each) => [each.name, each.dead_letters, each.latest_dead_letters])]
    .flatMap(([name, counts, latest]) => Object.entries(counts).map(([cause, n]) => [name, cause, n, latest[cause] ?? []]));
  rows.sort((a, b) => (b[3][0]?.at ?? 0) - (a[3][0]?.at ?? 0));
  $("letters").hidden = rows.length === 0;
  const list = $("letter-list");
  resize(list, rows.length,
    () => node("li", {}, [node("div", {}, [node("strong"), node("span")]), node("div", { class: "ids" })]));
  rows.forEach(([name, cause, n, latest], index) => {
    const [head, ids] = list.children[index].children;
    put(head.children[0], name);
    const last = latest.length ? `, the last ${ago(latest[0].at, status.at)}` : "";
    put(head.children[1], ` · ${cause.replaceAll("_", " ")} · ${number(n)}${last}`);
    const wanted = latest.map((each) => each.id).filter(Boolean);
    if (ids.dataset.ids === JSON.stringify(wanted)) return; // so that what has the focus stays
    ids.dataset.ids = JSON.stringify(wanted);
    ids.replaceChildren(...wanted.map((id) => node("button", { type: "button", title: "Where is it?" }, [id])));
  });
}

function lookFor(event) {
  const button = event.target.closest("button");
  if (!button) return;
  $("where-id").value = button.textContent;
  $("where").requestSubmit();
  $("where-answer").scrollIntoView({ block: "nearest" });
}

// Where is an event?

const STATES = { delivered: "delivered", pending: "pending", dead_letter: "dead letter",
  filtered: "not asked for", not_kept: "settled, its receipt is not kept" };
const LEVELS = { delivered: "good", pending: "watch", dead_letter: "trouble" };
const moment = (text) => clock(Date.parse(text) / 1000);

function standing([name, each]) {
  const words = [STATES[each.state] ?? each.state];
  if (each.at && each.state !== "pending") words.push(moment(each.at));
  if (each.attempts) words.push(plural(each.attempts, "attempt"));
  const state = node("dd", {}, [words.join(", ")]);
  mark(state, LEVELS[each.state]);
  const more = each.place ?? each.cause;
  return node("div", {}, [node("dt", {}, [name]), state, ...(more ? [node("dd", { class: "place" }, [more])] : [])]);
}

function arrival(found) {
  const destinations = Object.values(found.destinations);
  if (found.received_at) {
    return `Received ${moment(found.received_at)}${found.connection ? `, by ${found.connection}` : ""}.`;
  }
  if (destinations.some((each) => each.state === "not_kept")) return "Not known any more: what is older than receipts are kept.";
  if (!found.gap) return "Not received, and no gap is on record when it was made.";
  const until = found.gap.until ? moment(found.gap.until) : "now";
  return `Not received: the feed was not heard from ${moment(found.gap.since)} to ${until} (${found.gap.reason}).`;
}

async function where(event) {
  event.preventDefault();
  const answer = $("where-answer");
  const id = $("where-id").value.trim();
  if (!id) return;
  try {
    const said = await fetch(`/where?id=${encodeURIComponent(id)}`, { signal: AbortSignal.timeout(PATIENCE) });
    if (!said.ok) throw new Error(await said.text());
    const found = await said.json();
    const rows = found.received_at ? Object.entries(found.destinations).map(standing) : [];
    answer.replaceChildren(node("p", {}, [arrival(found)]), node("dl", {}, rows));
  } catch (error) {
    answer.replaceChildren(node("p", {}, [`It could not be looked up: ${error.message}`]));
  }
}

// The whole

function show(status) {
  remember(status);
  put($("says"), status.says);
  mark($("verdict"), status.level);
  document.title = { good: "", watch: "◆ ", trouble: "▲ " }[status.level] + "grantex-beam";
  put($("running"), `Running since ${clock(status.started_at)} (${span(status.at - status.started_at)})`);
  showFeed(status);
  const names = new Set(status.destinations.map((each) => each.name));
  for (const table of Object.keys(shown)) forget(table, names);
  for (const each of status.destinations) {
    showDestination(each, status.at);
    showWork(each);
    showBooks(each);
  }
  showLetters(status);
  for (const term of SELDOM) {
    const none = !status.destinations.some((each) => each.books[term] > 0);
    $(`plus-${term}`).hidden = none;
    for (const cell of document.querySelectorAll(`.${term}`)) cell.hidden = none;
  }
  $("nobody").hidden = names.size > 0 || status.standby !== null;
  for (const table of Object.keys(shown)) $(table).hidden = names.size === 0;
  for (const table of ["work", "books"]) $(table).closest("section").hidden = names.size === 0;
  const limit = status.journal_max_bytes ? ` of ${bytes(status.journal_max_bytes)}` : "";
  put($("about"), `grantex-beam ${status.version} · journal ${bytes(status.journal_bytes)}${limit}`);
  const first = $("main").hidden;
  $("main").hidden = false;
  if (first && past) drawAll();
  $("page").removeAttribute("aria-busy");
}

function beat() {
  const heart = $("heart");
  heart.classList.remove("beat");
  void heart.offsetWidth; // so that the animation starts again
  heart.classList.add("beat");
}

function gone() {
  const since = lastLook ? `The last look was at ${clock(lastLook / 1000)}, ${ago(lastLook / 1000, Date.now() / 1000)}; `
    + "what is below is from then. " : "";
  put($("gone-text"), `${since}It has ended, or this device has lost the way to it. Trying again every second.`);
  $("gone").hidden = false;
  document.body.classList.add("stale");
  document.title = "✕ grantex-beam, not reachable";
}

async function look() {
  clearTimeout(timer);
  const began = Date.now();
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const status = await answer.json();
    lastLook = Date.now();
    $("gone").hidden = true;
    document.body.classList.remove("stale");
    show(status);
    beat();
  } catch (error) {
    gone();
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, Math.max(0, EVERY - (Date.now() - began)));
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) { look(); charts(); } });
$("where").addEventListener("submit", where);
$("letter-list").addEventListener("click", lookFor);
charts().then(look); // so that what is shown first has its rates
