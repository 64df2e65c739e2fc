// Asks for /history.json every ten seconds and draws it: a line each, 100 wide, with time on the way to the right.
// Before page.js, whose words and nodes it uses.
"use strict";

const CHARTS_EVERY = 10000; // ms
const SVG = "http://www.w3.org/2000/svg";
const WINDOWS = [[300, "last 5 minutes"], [900, "last 15 minutes"], [3600, "last hour"]];
const TICKS = { 300: 60, 900: 180, 3600: 600 }; // seconds between two
const NARROWEST = 0.5; // of a gap's band
let past = null; // the last /history.json
let chartsTimer = 0;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const picture = () => shape("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });

const newest = (values) => values?.[values.length - 1] ?? null;

function frame() { // what is shown of the time axis
  const [seconds, words] = WINDOWS.find(([most]) => past.at - past.times[0] <= most) ?? WINDOWS[WINDOWS.length - 1];
  return { from: past.at - seconds, to: past.at, seconds, words };
}

const across = (at, { from, seconds }) => (100 * (at - from)) / seconds;

function pieces(values, { from }) { // where nothing is known, or nobody looked, the line is interrupted
  const found = [];
  let open = null;
  let before = -Infinity;
  past.times.forEach((at, index) => {
    const value = values[index];
    if (value === null || value === undefined || at < from) { open = null; return; }
    if (open === null || at - before > 3 * past.every) found.push(open = []);
    open.push([at, value]);
    before = at;
  });
  return found;
}

function gapBands(axis) {
  const shapes = [];
  for (const gap of past.gaps) {
    const [left, right] = [Math.max(0, across(gap.since, axis)), across(gap.until ?? axis.to, axis)];
    if (right <= 0) continue;
    const width = Math.max(NARROWEST, right - left);
    shapes.push(shape("rect", { class: "gap-band", x: Math.min(left, 100 - width), y: 0, width, height: 100 }));
  }
  return shapes;
}

function draw(svg, values, axis, least) {
  const found = pieces(values, axis);
  const known = found.flat();
  const most = known.reduce((top, [, value]) => Math.max(top, value), 0);
  const scale = 94 / Math.max(most, least);
  const shapes = gapBands(axis);
  for (const piece of found) {
    const line = piece.map(([at, value]) => `${across(at, axis).toFixed(2)},${(100 - scale * value).toFixed(1)}`).join(" L");
    const [first, last] = [piece[0][0], piece[piece.length - 1][0]].map((at) => across(at, axis).toFixed(2));
    shapes.push(shape("path", { class: "area", d: `M${first},100 L${line} L${last},100 Z` }));
    shapes.push(shape("path", { class: "line", d: `M${line}` }));
  }
  const began = across(past.started_at, axis).toFixed(2);
  if (began > 0) shapes.push(shape("line", { class: "began", x1: began, x2: began, y1: 0, y2: 100 }));
  svg.replaceChildren(...shapes);
  return known.length ? { most, at: known.find(([, value]) => value === most)[0], now: known[known.length - 1][1] } : null;
}

function describe(svg, what, found, words, told) {
  svg.setAttribute("aria-label", found
    ? `${what}, ${words}: now ${told(found.now)}, at most ${told(found.most)} at ${clock(found.at)}` : `${what}, ${words}: not known yet`);
}

function place(where, at, axis, text, width, kind = "") { // in the middle over its time, unless the edge is near
  const left = Math.min(100, Math.max(0, across(at, axis)));
  const edge = left - width / 2 < 0 ? "at-start" : left + width / 2 > 100 ? "at-end" : "";
  const made = node("span", { class: `${kind} ${edge}` }, [text]);
  made.style.left = `${left}%`;
  where.append(made);
  return edge === "at-end" ? left - width : left - width / 2; // free is what is left of this
}

function drawMarks(axis) {
  const marks = $("marks");
  marks.replaceChildren();
  const [wide, narrow] = [86, 36].map((pixels) => (100 * pixels) / Math.max(marks.clientWidth, pixels));
  const named = past.gaps.filter(({ until }) => until === null || until > axis.from).map(({ since, until }) => ({
    at: (Math.max(since, axis.from) + (until ?? axis.to)) / 2,
    text: `▼ ${until === null ? "gap, open" : `gap ${span(until - since)}`}`,
    width: wide,
    kind: "gap-mark",
  }));
  if (past.started_at > axis.from) named.push({ at: past.started_at, text: "start", width: narrow, kind: "" });
  let edge = Infinity; // what is left of this is free
  for (const { at, text, width, kind } of named.sort((one, other) => other.at - one.at)) {
    if (Math.min(100, across(at, axis) + width / 2) > edge) continue; // its band, or its line, says it
    edge = place(marks, at, axis, text, width, kind);
  }
}

function drawTicks(axis) {
  const ticks = $("ticks");
  ticks.replaceChildren();
  const step = TICKS[axis.seconds] * (ticks.clientWidth < 500 ? 2 : 1);
  const ahead = new Date(axis.to * 1000).getTimezoneOffset() * 60;
  for (let at = Math.ceil((axis.from - ahead) / step) * step + ahead; at <= axis.to; at += step) {
    place(ticks, at, axis, clock(at).slice(-8, -3), (100 * 36) / Math.max(ticks.clientWidth, 36));
  }
}

function drawDestination(name, { sparks }) {
  const values = past?.destinations[name];
  if (!values || !past.times.length) return;
  const axis = frame();
  const kinds = [["Delivered a second", values.delivered, 1, rate], ["Pending", values.pending, 10, number], ["Lag", values.lag, 5, span]];
  kinds.forEach(([what, numbers, least, told], index) => {
    const { line, peak } = sparks[index];
    const found = draw(line, numbers, axis, least);
    describe(line, `${what} to ${name}`, found, axis.words, told);
    put(peak, found && found.most > 0 ? `peak ${told(found.most)}` : "");
  });
}

function drawAll() {
  if (!past.times.length) return;
  const axis = frame();
  for (const where of document.querySelectorAll(".window")) put(where, axis.words);
  $("lines").hidden = shown.destinations.size === 0;
  $("received").hidden = false; // first, as what is hidden has no width
  const found = draw($("received-line"), past.received, axis, 1);
  const gaps = past.gaps.filter((gap) => gap.until === null || gap.until > axis.from).length;
  $("received").hidden = !found && !gaps; // a standby receives nothing
  describe($("received-line"), "Received a second", found, `${axis.words}${gaps ? `, with ${plural(gaps, "gap")}` : ""}`, rate);
  put($("received-peak"), found && found.most > 0 ? `peak ${rate(found.most)}` : "");
  drawMarks(axis);
  drawTicks(axis);
  for (const [name, row] of shown.destinations) drawDestination(name, row);
}

async function charts() {
  clearTimeout(chartsTimer);
  try {
    const answer = await fetch("/history.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (answer.ok) {
      past = await answer.json();
      if (!$("main").hidden) drawAll();
    }
  } catch (error) {
    // who asks each second says that the job is gone
  }
  clearTimeout(chartsTimer);
  if (!document.hidden) chartsTimer = setTimeout(charts, CHARTS_EVERY);
}

window.addEventListener("resize", () => { if (past) drawAll(); });
