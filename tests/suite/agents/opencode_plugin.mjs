// Runs the plugin of opencode as opencode does, with events of one session and of its sub-agent, until stdin ends.
//   node opencode_plugin.mjs PLUGIN
import { copyFileSync } from "node:fs";

const [plugin] = process.argv.slice(2);
// opencode reads it as a module, whatever its ending.
copyFileSync(plugin, plugin + ".mjs");
const { Sessiond } = await import(plugin + ".mjs");
const hooks = await Sessiond({ directory: "/home/dev/src/app" });
const event = (type, properties) => hooks.event({ event: { type, properties } });

await event("session.created", { sessionID: "ses_1", info: { id: "ses_1", directory: "/home/dev/src/app", version: "1.18" } });
await event("session.created", { sessionID: "ses_2", info: { id: "ses_2", parentID: "ses_1" } });
const message = { model: { modelID: "m" } };
await hooks["chat.message"]({ sessionID: "ses_1" }, { message, parts: [{ type: "text", text: "Fix the login" }] });
await event("session.status", { sessionID: "ses_1", status: { type: "busy" } });
await event("session.error", { sessionID: "ses_1", error: { name: "APIError", data: { message: "x", statusCode: 529 } } });
// The idle state after a failure says nothing new.
await event("session.status", { sessionID: "ses_1", status: { type: "idle" } });
await event("session.idle", { sessionID: "ses_1" });
await hooks["tool.execute.after"]({ sessionID: "ses_2", tool: "edit", args: { filePath: "/x" } }, {});
// What no version sends.
for (const odd of [undefined, null, {}, { event: null }, { event: { type: 7, properties: 7 } }]) await hooks.event(odd);
await hooks["chat.message"](undefined, undefined);
await hooks["tool.execute.after"](null);
await hooks["experimental.chat.system.transform"](undefined, undefined);

// The context of the start reaches the system prompt once the report is answered.
const output = { system: [] };
for (let tries = 0; tries < 400 && output.system.length === 0; tries += 1) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  await hooks["experimental.chat.system.transform"]({ sessionID: "ses_1" }, output);
}
console.log((output.system[0] ?? "").split("\n")[0]);
process.stdin.resume().on("end", () => process.exit(0));
