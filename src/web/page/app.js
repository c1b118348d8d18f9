// The list of sessions, kept current by the server's events. The order is the server's.

import { age, ageOf, ask, element, mark, setAge, setNow, setText, stateWords, updateAges } from "./dom.js";
import { contextBar, fleetHours } from "./plots.js";
import { showSession } from "./session.js";

const PAGE = 100;
const NEEDS = ["waiting", "failed", "idle", "working", "active", "stale"];
const at = (id) => document.getElementById(id);
const filter = { q: "", machine: "", need: "", offset: 0 };
const rows = new Map();
let view = null;
let lastSeen = new Date().toISOString();
let connected = true;

// --- the rows

function newRow(session) {
  const link = element("a", { class: "title", href: `#/s/${encodeURIComponent(session.instance_id)}` });
  const parts = {
    state: element("td"), link, sub: element("span", { class: "sub" }), project: element("td", { class: "wide" }), machine: element("td", { class: "wide" }),
    branch: element("td", { class: "wide" }), context: element("td", { class: "number" }), since: element("span", {}),
  };
  const row = element("tr", {}, parts.state, element("td", {}, link, parts.sub), parts.project, parts.machine, parts.branch, parts.context, element("td", { class: "number" }, parts.since));
  return { row, parts, shown: "" };
}

function fillRow({ row, parts }, session) {
  const needsYou = session.need === "waiting" || session.need === "failed";
  row.className = [needsYou && "needs-you", session.need === "failed" && "is-failed", !session.machine_synced && "away"].filter(Boolean).join(" ");
  parts.state.className = `state ${session.need}`;
  parts.state.replaceChildren(mark(session.need), element("span", { class: "label" }, stateWords(session)));
  setText(parts.link, session.title || session.instance_id);
  const detail = [session.title ? session.instance_id : null, session.current_epic ? `epic ${session.current_epic}` : null, session.activity_detail,
    session.conflicts > 0 ? `shares its place with ${session.conflicts}` : null];
  const narrow = [session.project, session.host_machine, session.branch].filter(Boolean).map((text) => element("span", { class: "narrow" }, text));
  parts.sub.replaceChildren(detail.filter(Boolean).join(" · "), ...narrow);
  if (!session.machine_synced) parts.sub.append(" · as of ", ageOf(session.as_of, "", " ago"));
  setText(parts.project, session.project);
  setText(parts.machine, session.host_machine);
  setText(parts.branch, session.branch ?? "");
  parts.context.replaceChildren(contextBar(session.context_percent), element("span", { class: "percent" }, `${session.context_percent} %`));
  setAge(parts.since, session.activity_since ?? session.last_heartbeat);
}

function showRows(sessions) {
  const body = at("rows");
  const focused = document.activeElement;
  const wanted = new Set(sessions.map((session) => session.instance_id));
  for (const [id, entry] of rows) {
    if (!wanted.has(id)) { entry.row.remove(); rows.delete(id); }
  }
  let place = body.firstElementChild;
  for (const session of sessions) {
    const entry = rows.get(session.instance_id) ?? newRow(session);
    rows.set(session.instance_id, entry);
    const shown = JSON.stringify(session);
    if (entry.shown !== shown) { fillRow(entry, session); entry.shown = shown; }
    if (entry.row === place) place = place.nextElementSibling;
    else body.insertBefore(entry.row, place);
  }
  // A row that moved lost the focus.
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
}

// --- what surrounds them

function showNeeds(counts) {
  const nav = at("needs");
  for (const need of NEEDS) {
    let button = nav.querySelector(`[data-need="${need}"]`);
    if (!button) {
      button = element("button", { type: "button", class: need, "data-need": need }, mark(need), element("span"));
      button.addEventListener("click", () => setFilter({ need: filter.need === need ? "" : need }));
      nav.append(button);
    }
    setText(button.lastElementChild, `${counts[need] ?? 0} ${need}`);
    button.setAttribute("aria-pressed", String(filter.need === need));
    button.hidden = !counts[need] && filter.need !== need;
  }
}

function showMachines(machines) {
  const list = at("machines");
  const known = new Map([...list.children].map((item) => [item.dataset.machine, item]));
  const items = machines.map((machine) => {
    const name = machine.host_machine;
    let item = known.get(name);
    if (!item) {
      const button = element("button", { type: "button" });
      button.addEventListener("click", () => setFilter({ machine: filter.machine === name ? "" : name }));
      item = element("li", { "data-machine": name }, button);
    }
    const button = item.firstElementChild;
    const away = machine.reachable === false && !machine.is_here;
    const note = machine.is_here ? "this machine" : away ? ageOf(machine.last_seen, "away, seen ", " ago") : machine.reachable ? "connected" : "no daemon known";
    const counts = NEEDS.filter((need) => machine.counts[need]).map((need) => element("span", { class: need }, mark(need), `${machine.counts[need]} ${need}`));
    const key = JSON.stringify(machine);
    item.className = away ? "away" : "";
    button.setAttribute("aria-pressed", String(filter.machine === name));
    if (item.dataset.shown !== key) {
      item.dataset.shown = key;
      const headroom = machine.headroom_percent === null ? null : element("span", { class: "note" }, `${Math.round(machine.headroom_percent)} % of its limits left`);
      button.replaceChildren(element("span", { class: "name" }, name), element("span", { class: "note" }, note), ...(headroom ? [headroom] : []), element("span", { class: "counts" }, ...counts));
    }
    return item;
  });
  if (items.length !== list.children.length || items.some((item, index) => list.children[index] !== item)) list.replaceChildren(...items);
}

function showLink() {
  const link = view?.link;
  const offline = at("offline");
  const isOff = !connected || (link && !link.online);
  document.body.classList.toggle("offline-page", Boolean(isOff));
  offline.hidden = !isOff;
  if (!connected) setText(offline, `This page has lost its server; \`sessiond web\` may have ended. Shown is what was known ${age(lastSeen)} ago.`);
  else if (isOff) setText(offline, `The daemon does not answer${link.error ? ` (${link.error})` : ""}. Shown is what was known ${age(link.as_of)} ago.`);
  if (!link) return;
  const central = !link.central || link.central === "off" ? "no central database" : link.central === "connected" ? "central is connected" : `central is ${link.central.replace("_", " ")} for ${age(link.central_since)}`;
  const backlog = link.backlog > 0 && link.central !== "off" ? `, ${link.backlog} changes wait` : "";
  setText(at("link"), `${link.machine ?? "this machine"} · ${isOff ? "offline" : central + backlog}`);
}

function announce(before) {
  if (!before) return;
  const known = new Map(before.sessions.map((session) => [session.instance_id, session.need]));
  const news = view.sessions.filter((s) => (s.need === "waiting" || s.need === "failed") && known.get(s.instance_id) !== s.need);
  const words = news.slice(0, 3).map((session) => `${session.title || session.instance_id} on ${session.host_machine}: ${stateWords(session)}`);
  if (words.length) setText(at("announce"), words.join(". "));
  const waiting = (view.counts.waiting ?? 0) + (view.counts.failed ?? 0);
  if (!at("list").hidden) document.title = waiting > 0 ? `(${waiting}) sessiond` : "sessiond";
}

function showView() {
  setNow(view.now);
  showLink();
  showNeeds(view.counts);
  showMachines(view.machines);
  showRows(view.sessions);
  const isFiltered = Boolean(filter.q || filter.machine || filter.need);
  setText(at("matching"), isFiltered ? `${view.matching} of ${view.total}${filter.machine ? ` on ${filter.machine}` : ""}` : `${view.total}`);
  at("empty").hidden = view.matching > 0;
  setText(at("empty"), isFiltered ? "No session matches." : "No session is open. An agent with sessiond's hooks, or `sessiond register`, begins one.");
  at("pages").hidden = view.matching <= PAGE;
  setText(at("page"), `${view.offset + 1} to ${Math.min(view.offset + PAGE, view.matching)} of ${view.matching}`);
  at("earlier").disabled = view.offset === 0;
  at("later").disabled = view.offset + PAGE >= view.matching;
}

// --- keeping it current

let loading = false;
let again = false;
async function load() {
  if (loading) { again = true; return; }
  loading = true;
  try {
    const before = view;
    view = await ask(`/api/view?${new URLSearchParams({ ...filter, limit: PAGE })}`);
    if (view.offset > 0 && view.offset >= view.matching) { filter.offset = 0; again = true; }
    [connected, lastSeen] = [true, view.now];
    showView();
    announce(before);
    await showRoute(false);
  } catch {
    connected = false;
    showLink();
  } finally {
    loading = false;
  }
  if (again) { again = false; await load(); }
}

function setFilter(changes) {
  Object.assign(filter, { offset: 0 }, changes);
  load();
}

async function loadHours() {
  try { at("hours").replaceChildren(fleetHours(await ask("/api/hours"))); } catch { /* the banner says that the daemon is away */ }
}

let route = null;
async function showRoute(isNew) {
  const id = location.hash.startsWith("#/s/") ? decodeURIComponent(location.hash.slice(4)) : null;
  at("list").hidden = Boolean(id);
  at("session").hidden = !id;
  if (id) {
    try {
      await showSession(at("session"), id, view?.actions ?? false, confirmClose);
    } catch (error) {
      if (isNew) at("session").replaceChildren(element("a", { class: "back", href: "#/" }, "← All sessions"), element("h2", { tabindex: "-1" }, id), element("p", {}, `It cannot be shown: ${error.message}.`));
    }
    if (isNew) at("session").querySelector("h2")?.focus();
  } else if (isNew && route) {
    document.title = "sessiond";
    rows.get(route)?.parts.link.focus();
  }
  if (isNew) route = id;
}

function confirmClose(session) {
  setText(at("confirm-text"), `Close ${session.title || session.instance_id}? A closed session stays closed; its agent is not ended.`);
  at("confirm-yes").onclick = async () => {
    at("confirm").close();
    try {
      await ask(`/api/sessions/${encodeURIComponent(session.instance_id)}/close`, { method: "POST", headers: { "X-Sessiond-Action": "close" } });
      location.hash = "#/";
    } catch (error) { setText(at("announce"), `It could not be closed: ${error.message}`); }
  };
  at("confirm").showModal();
}

function moveFocus(step) {
  const links = [...at("rows").querySelectorAll("a")];
  const index = links.indexOf(document.activeElement);
  links[index < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(index + step, 0), links.length - 1)]?.focus();
}

addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.ctrlKey || event.metaKey || event.altKey || at("confirm").open) return;
  if (event.key === "/" && !isTyping && !at("list").hidden) { event.preventDefault(); at("words").focus(); }
  else if (event.key === "Escape" && isTyping) { at("words").value = ""; setFilter({ q: "" }); at("main").focus(); }
  else if (event.key === "Escape" && location.hash.startsWith("#/s/")) location.hash = "#/";
  else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !at("list").hidden && !event.target.closest?.("pre, .hours")) {
    event.preventDefault();
    moveFocus(event.key === "ArrowDown" ? 1 : -1);
  }
});
addEventListener("hashchange", () => showRoute(true));
at("confirm-no").addEventListener("click", () => at("confirm").close());
at("earlier").addEventListener("click", () => { filter.offset = Math.max(0, filter.offset - PAGE); load(); });
at("later").addEventListener("click", () => { filter.offset += PAGE; load(); });
at("filter").addEventListener("submit", (event) => { event.preventDefault(); moveFocus(1); });
let typed = 0;
at("words").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(() => setFilter({ q: at("words").value.trim() }), 120); });

const events = new EventSource("/events");
events.addEventListener("change", load);
events.addEventListener("error", () => { connected = false; showLink(); });
setInterval(() => { updateAges(); showLink(); }, 1000);
setInterval(loadHours, 60000);
load().then(() => showRoute(true));
loadHours();
