// The page of one session.

import { ageOf, ask, element, mark, stateWords } from "./dom.js";
import { contextPlot, timeline } from "./plots.js";

function fields(session) {
  const rows = [
    ["Id", session.instance_id], ["Machine", session.host_machine + (session.local ? " (this one)" : "")], ["Project", session.project],
    ["Epic", session.current_epic], ["Agent", [session.agent, session.agent_version].filter(Boolean).join(" ")], ["Model", session.model],
    ["Repository", session.repository], ["Branch", session.branch], ["Folder", session.working_dir],
    ["Context", `${session.context_percent} %`], ["Cost", session.cost_usd === null ? null : `$${session.cost_usd.toFixed(2)}`],
    ["Heartbeat", ageOf(session.last_heartbeat, "", " ago")], ["Known", ageOf(session.as_of, "as of ", " ago")],
    ["Shares its place with", (session.conflicts_with ?? []).join(", ")],
  ];
  return element("dl", {}, rows.filter(([, value]) => value).map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function part(title, ...content) { return [element("h3", {}, title), ...content]; }

function dated(title, entry) {
  return entry ? part(title, element("p", { class: "muted" }, ageOf(entry.at, "", " ago")), element("pre", { tabindex: "0", "aria-label": title }, entry.value)) : [];
}

function workOf(work) {
  const todos = (work.todos?.value ?? []).map((todo) => element("li", { class: "todo" },
    element("span", { "aria-hidden": "true" }, { completed: "✓", in_progress: "▸" }[todo.status] ?? "·"),
    element("span", {}, todo.text, element("span", { class: "hidden" }, ` (${todo.status.replace("_", " ")})`))));
  const error = work.last_error?.value;
  return [
    ...(error ? part("Last error", element("pre", { tabindex: "0", "aria-label": "Last error" }, [error.kind, error.message].filter(Boolean).join(": "))) : []),
    ...dated("Last prompt", work.last_prompt), ...dated("Last answer", work.last_answer),
    ...(todos.length ? part("To-dos", element("ul", {}, todos)) : []),
    ...((work.files ?? []).length ? part("Files", element("ul", {}, work.files.map((file) => element("li", {}, file.value)))) : []),
  ];
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without HTTPS a browser may refuse; the text is selected instead.
    getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    button.textContent = "Selected";
  }
}

// `actions`: offers to close it, which calls `onClose`.
export async function showSession(article, id, actions, onClose) {
  const answer = await ask(`/api/sessions/${encodeURIComponent(id)}`);
  const { session, need, work, activity, command, handoff } = answer;
  const focused = article.contains(document.activeElement) ? document.activeElement?.dataset.key : null;
  const copyButton = element("button", { type: "button", "data-key": "copy" }, "Copy");
  copyButton.addEventListener("click", () => copy(copyButton, command));
  const closeButton = element("button", { type: "button", class: "danger", "data-key": "close" }, "Close this session");
  closeButton.addEventListener("click", () => onClose(session));
  article.replaceChildren(
    element("a", { class: "back", href: "#/", "data-key": "back" }, "← All sessions"),
    element("h2", { tabindex: "-1", "data-key": "title" }, session.title || session.instance_id),
    element("p", { class: `state ${need}` }, mark(need), stateWords({ ...session, need }),
      session.activity_detail ? ` · ${session.activity_detail}` : "", session.activity_since ? ageOf(session.activity_since, " · for ") : ""),
    fields(session),
    ...part("Activity", ...timeline(activity)),
    ...part("Context", contextPlot(activity, session.context_percent)),
    ...(command ? part("Resume", element("div", { class: "command" }, element("pre", { tabindex: "0", "aria-label": "Command that resumes the session" }, command), copyButton)) : []),
    ...workOf(work),
    ...(handoff ? part("Handoff", element("pre", { tabindex: "0", "aria-label": "Handoff" }, handoff)) : []),
    ...(actions && session.local && session.status !== "closed" ? part("Actions", closeButton) : []),
  );
  if (focused) article.querySelector(`[data-key="${focused}"]`)?.focus();
  document.title = `${session.title || session.instance_id} · sessiond`;
}
