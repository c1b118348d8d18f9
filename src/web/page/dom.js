// Elements and words that all parts of the page use. Text is only ever set as text.

export const SYMBOLS = { waiting: "?", failed: "!", idle: "○", working: "●", active: "·", stale: "–", closed: "×" };

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The server's clock; the browser's may be wrong.
let ahead = 0;
export function setNow(text) { ahead = Date.parse(text) - Date.now(); }
export function now() { return Date.now() + ahead; }

export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${Math.floor(seconds / 60) % 60}m`;
  return `${Math.floor(seconds / 86400)}d`;
}

export function age(text) { return text ? duration(now() - Date.parse(text)) : ""; }

// A node whose text is the age of a time, and is kept so.
export function ageOf(text, before = "", after = "") {
  const node = element("span", { "data-at": text, "data-before": before, "data-after": after });
  updateAge(node);
  return node;
}

export function setAge(node, text) {
  if (text) node.dataset.at = text; else delete node.dataset.at;
  updateAge(node);
}

function updateAge(node) {
  const { at, before = "", after = "" } = node.dataset;
  setText(node, at ? before + age(at) + after : "");
}

export function updateAges() { document.querySelectorAll("[data-at]").forEach(updateAge); }

export function stateWords(session) {
  return [session.need ?? "", session.waiting_for ? `for ${session.waiting_for}` : ""].filter(Boolean).join(" ");
}

export function mark(need) {
  return element("span", { class: "mark", "aria-hidden": "true" }, SYMBOLS[need] ?? "·");
}

export async function ask(path, options = {}) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  const body = response.headers.get("content-type")?.startsWith("application/json") ? await response.json() : null;
  if (!response.ok) throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
  return body;
}
