// Written by `sessiond install --agent opencode`; `sessiond uninstall --agent opencode` removes it.
//
// Reports the sessions of this opencode to sessiond. It neither delays nor fails opencode: each report is a process of its
// own that nothing waits for, and every error is ignored.
import { spawn } from "node:child_process";

const PROGRAM = "SESSIOND";
// A report takes some milliseconds; one that hangs is ended, in milliseconds.
const TIMEOUT = 10_000;
// Reports that wait for others are dropped beyond this number.
const MOST_PENDING = 200;
// Tools whose calls say something about the work.
const TOOLS = /^(bash|edit|write|patch|multiedit|apply_patch|todowrite|webfetch)$/;

export const Sessiond = async ({ directory }) => {
  const kind = process.argv[2] === "run" ? "headless" : undefined;
  const parents = new Map(); // the parent of each sub-agent's session
  const contexts = new Map(); // what each session's system prompt gets
  const titles = new Map();
  const known = new Set();
  const failed = new Set(); // sessions whose turn failed: the idle state after it says nothing new
  let hasStatus = false;
  let pending = 0;
  let last = Promise.resolve();

  const run = (input) =>
    new Promise((done) => {
      let printed = "";
      try {
        const child = spawn(PROGRAM, ["hook", "--agent", "opencode"], { stdio: ["pipe", "pipe", "ignore"] });
        const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT);
        timer.unref?.();
        child.on("error", () => (clearTimeout(timer), done("")));
        child.on("close", () => (clearTimeout(timer), done(printed)));
        child.stdin.on("error", () => {});
        child.stdout.on("data", (data) => printed.length < 100_000 && (printed += data));
        child.stdin.end(JSON.stringify(input));
      } catch {
        done("");
      }
    });

  // One report after the other, so that they arrive in order.
  const report = (name, id, data) => {
    if (pending >= MOST_PENDING) return;
    pending += 1;
    const input = { hook_event_name: name, directory, kind, parent_session_id: parents.get(id), ...data };
    last = last
      .then(() => run(input))
      .then((printed) => {
        const context = JSON.parse(printed || "{}").additionalContext;
        if (typeof context !== "string") return;
        const before = name.includes("session.") ? undefined : contexts.get(id);
        contexts.set(id, [before, context].filter(Boolean).join("\n\n").slice(-20_000));
      })
      .catch(() => {})
      .finally(() => (pending -= 1));
  };

  const onEvent = (event) => {
    const properties = event?.properties ?? {};
    const id = properties.sessionID ?? properties.info?.id;
    if (!id) return;
    const isChild = parents.has(id);
    const send = (part = properties) => report("event." + event.type, id, { event: { type: event.type, properties: part } });
    switch (event.type) {
      case "session.created":
        known.add(id);
        if (properties.info?.parentID) parents.set(id, properties.info.parentID);
        return send();
      case "session.updated":
        if (isChild || !properties.info?.title || titles.get(id) === properties.info.title) return;
        titles.set(id, properties.info.title);
        return send();
      case "session.deleted":
        for (const all of [known, failed, contexts, titles]) all.delete(id);
        if (!isChild) send();
        return void parents.delete(id);
      case "session.status":
        hasStatus = true;
        if (isChild) return;
        if (properties.status?.type !== "idle") failed.delete(id);
        else if (failed.has(id)) return;
        return send();
      case "session.idle":
        if (!hasStatus && !isChild && !failed.has(id)) send();
        return;
      case "session.error":
        if (isChild) return;
        if (properties.error?.name !== "MessageAbortedError") failed.add(id);
        return send();
      case "todo.updated":
        if (!isChild) send();
        return;
      case "permission.asked":
      case "permission.updated":
      case "permission.replied":
      case "question.asked":
      case "question.replied":
      case "question.rejected":
        return send();
    }
  };

  // A fault here must not become one of opencode.
  const harmless = (hook) => async (...values) => {
    try {
      hook(...values);
    } catch {}
  };

  return {
    event: harmless(({ event }) => onEvent(event)),
    "chat.message": harmless((input, output) => {
      const id = input?.sessionID;
      if (!id || parents.has(id)) return;
      failed.delete(id);
      if (!known.has(id)) {
        // It was created by an earlier process.
        known.add(id);
        report("session.resumed", id, { event: { type: "session.resumed", properties: { sessionID: id } } });
      }
      const parts = (output?.parts ?? []).filter((part) => part.type === "text");
      const message = { model: output?.message?.model };
      report("chat.message", id, { input: { sessionID: id }, output: { message, parts } });
    }),
    "tool.execute.after": harmless((input, output) => {
      const id = input?.sessionID;
      if (!id || parents.has(id) || !TOOLS.test(input.tool)) return;
      report("tool.execute.after", id, { input: { sessionID: id, tool: input.tool, args: input.args } });
    }),
    "experimental.session.compacting": harmless((input) => {
      if (input?.sessionID && !parents.has(input.sessionID)) {
        report("experimental.session.compacting", input.sessionID, { input: { sessionID: input.sessionID } });
      }
    }),
    "experimental.chat.system.transform": harmless((input, output) => {
      const context = contexts.get(input?.sessionID);
      if (context) output?.system?.push(context);
    }),
  };
};
