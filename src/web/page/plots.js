// The pictures: a session's last day, its context, and the fleet's hours. Each state has a form beside its colour.

import { duration, element, now, svg } from "./dom.js";

const DAY = 86400000;
const HEIGHTS = { working: 1, waiting: 1, failed: 1, idle: 0.4 };

function hour(at) { return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }); }

function grid(width, height, from, to) {
  const lines = [];
  for (let n = 0; n <= 4; n += 1) {
    const x = Math.round((width * n) / 4);
    const anchor = n === 0 ? "start" : n === 4 ? "end" : "middle";
    lines.push(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: height }));
    lines.push(svg("text", { x: n === 0 ? 6 : n === 4 ? width - 6 : x, y: height + 14, "text-anchor": anchor }, hour(from + ((to - from) * n) / 4)));
  }
  return lines;
}

function hatch(id, path) {
  return svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse" }, svg("path", { d: path, class: "stroke-surface", "stroke-width": 1.4 }));
}

// What a session did in the last day.
export function timeline(changes) {
  const [width, height, to] = [960, 56, now()];
  const from = to - DAY;
  const x = (at) => ((Math.min(Math.max(at, from), to) - from) / DAY) * width;
  const sums = {};
  const bars = [];
  changes.forEach((change, index) => {
    const begin = Math.max(Date.parse(change.at), from);
    const end = index + 1 < changes.length ? Date.parse(changes[index + 1].at) : to;
    if (!change.activity || end <= begin) return;
    sums[change.activity] = (sums[change.activity] ?? 0) + (end - begin);
    const tall = height * (HEIGHTS[change.activity] ?? 0.4);
    const place = { x: x(begin).toFixed(1), y: (height - tall).toFixed(1), width: Math.max(1, x(end) - x(begin)).toFixed(1), height: tall.toFixed(1) };
    bars.push(svg("rect", { ...place, class: `fill-${change.activity}` }));
    if (change.activity === "waiting") bars.push(svg("rect", { ...place, fill: "url(#stripes)" }));
    if (change.activity === "failed") bars.push(svg("rect", { ...place, fill: "url(#crosses)" }));
  });
  const words = Object.entries(sums).map(([state, time]) => `${state} ${duration(time)}`).join(", ");
  const label = `The last 24 hours: ${words || "no activity is recorded"}`;
  return [
    svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height + 20}`, role: "img", "aria-label": label },
      svg("defs", {}, hatch("stripes", "M-1 7L7 -1"), hatch("crosses", "M-1 7L7 -1M-1 -1L7 7")),
      svg("rect", { class: "track", width, height }), bars, grid(width, height, from, to)),
    element("p", { class: "muted" }, label),
  ];
}

// How full the context was in the last day.
export function contextPlot(changes, percent) {
  const [width, height, to] = [960, 90, now()];
  const from = to - DAY;
  const points = changes.map((change) => [Date.parse(change.at), change.context_percent]).concat([[to, percent]]);
  const first = points.findIndex(([at]) => at >= from);
  const shown = points.slice(Math.max(0, first - 1));
  const x = (at) => (((Math.max(at, from) - from) / DAY) * width).toFixed(1);
  const y = (value) => (height - (value / 100) * (height - 8)).toFixed(1);
  let path = "";
  let last = null;
  for (const [at, value] of shown) {
    path += last === null ? `M${x(at)} ${y(value)}` : `L${x(at)} ${y(last)}L${x(at)} ${y(value)}`;
    last = value;
  }
  return svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height + 20}`, role: "img", "aria-label": `Context over the last 24 hours, now ${percent} percent` },
    grid(width, height, from, to),
    svg("line", { class: "grid", x1: 0, x2: width, y1: y(80), y2: y(80) }), svg("text", { x: 6, y: Number(y(80)) - 4 }, "80 %"),
    svg("path", { class: "area", d: `${path}L${width} ${height}L${x(shown[0][0])} ${height}Z` }), svg("path", { class: "line", d: path }));
}

// The state that says most of an hour: waiting and failing count before working, working before being idle.
function dominant(seconds) {
  if (seconds.waiting >= 300 && seconds.waiting >= seconds.working / 4) return "waiting";
  if (seconds.failed >= 300 && seconds.failed >= seconds.working / 4) return "failed";
  if (seconds.working > 0) return "working";
  return ["failed", "waiting", "idle"].find((state) => seconds[state] > 0) ?? null;
}

export function fleetHours({ from, machines }) {
  if (machines.length === 0) return element("p", { class: "muted" }, "No activity is recorded yet.");
  const start = Date.parse(from);
  const letters = { waiting: "Q", failed: "F", working: "W", idle: "I" };
  const hours = machines[0].hours.map((_, index) => new Date(start + index * 3600000).getHours());
  const head = element("tr", {}, element("td", {}), hours.map((n) => element("th", { scope: "col" }, String(n).padStart(2, "0"))));
  const rows = machines.map((machine) => element("tr", {}, element("th", { scope: "row" }, machine.host_machine),
    machine.hours.map((seconds) => {
      const state = dominant(seconds);
      const spent = ["working", "waiting", "failed", "idle"].filter((name) => seconds[name] > 0);
      const words = spent.map((name) => `${name} ${duration(seconds[name] * 1000)}`).join(", ");
      return element("td", { title: words }, element("span", { class: `cell ${state ?? ""}` }, state ? letters[state] : ""));
    })));
  return element("table", {}, element("caption", { class: "hidden" }, "What the sessions of each machine did in each hour"), element("thead", {}, head), element("tbody", {}, rows));
}

export function contextBar(percent) {
  return svg("svg", { class: "context", viewBox: "0 0 64 6", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 64, height: 6, rx: 3 }),
    svg("rect", { class: percent >= 80 ? "fill-waiting" : "fill-idle", width: (Math.max(0, Math.min(100, percent)) * 64) / 100, height: 6, rx: 3 }));
}
