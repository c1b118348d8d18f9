// Speaks to `sessiond mcp` with the official clients: node mcp_client.mjs FOLDER PROGRAM, where the clients are
// installed in FOLDER. Prints a line for each client that went through all of it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, program] = process.argv.slice(2);
const { resolve } = createRequire(join(folder, "x.js"));
const load = (name) => import(pathToFileURL(resolve(name)));

async function session(client) {
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    const call = async (name, args = {}) => {
        const result = await client.callTool({ name: `mcp_meta_${name}`, arguments: args });
        const text = result.content[0].text;
        return result.isError ? { error: text } : { ...result.structuredContent, text };
    };
    for (const name of ["register_instance", "heartbeat", "list_instances", "get_instance_details", "resume_instance",
        "emit_event", "query_events", "log_command", "search_commands", "create_checkpoint", "get_checkpoint",
        "list_stale_instances", "fleet", "handoff", "conflicts"]) {
        assert.ok(names.includes(`mcp_meta_${name}`), name);
    }
    const registered = await call("register_instance", { project: "odin", current_epic: "003" });
    const instance_id = registered.instance_id;
    assert.match(instance_id, /^odin-PS-[a-z0-9]{6}$/);
    assert.equal(JSON.parse(registered.text).instance_id, instance_id);
    const beat = await call("heartbeat", { instance_id, context_percent: 42, current_epic: null });
    assert.equal(beat.context_percent, 42);
    assert.equal(beat.current_epic, null);
    const details = await call("get_instance_details", { instance_id });
    assert.equal(details.host_machine, "odin3");
    const list = await call("list_instances", { project: "odin", active_only: true });
    assert.ok(list.instances.some((one) => one.instance_id === instance_id));
    assert.equal(list.host_machine, "odin3");
    assert.equal((await call("list_stale_instances")).total_count, 0);

    for (const [name, args, told] of [
        ["heartbeat", { instance_id, context_percent: 101 }, "context_percent"],
        ["heartbeat", { instance_id: "nobody" }, "nobody"],
        ["heartbeat", {}, "instance_id"],
        ["register_instance", { project: "Odin" }, "project"],
        ["register_instance", { project: "odin", colour: "red" }, "colour"],
    ]) {
        const { error } = await call(name, args);
        assert.ok(error?.includes(told), `${name}: ${error}`);
    }
    await assert.rejects(client.callTool({ name: "dance", arguments: {} }));

    {
        const event = await call("emit_event", { instance_id, event_type: "epic_started", event_data: { epic: "003" } });
        assert.equal(event.host_machine, "odin3");
        const events = await call("query_events", { instance_id, type: "epic_started", limit: 1 });
        assert.equal(events.events[0].event_data.epic, "003");
        await call("log_command", { instance_id, action: "cargo test", tags: ["test"], execution_time_ms: 7 });
        const commands = await call("search_commands", { instance_id, contains: "cargo" });
        assert.equal(commands.commands[0].action, "cargo test");
        await call("create_checkpoint", { instance_id, checkpoint_type: "manual", work_state: { next: "tests" } });
        const checkpoint = await call("get_checkpoint", { instance_id });
        assert.equal(checkpoint.checkpoints[0].work_state.next, "tests");
        assert.equal(checkpoint.host_machine, "odin3");
    }
    assert.match((await call("resume_instance", { hint: instance_id })).error, /active/);

    const fleet = await call("fleet", { project: "odin" });
    assert.ok(fleet.sessions.some((one) => one.instance_id === instance_id));
    const handoff = await call("handoff", { instance_id });
    assert.ok(handoff.handoff.startsWith(`# Handoff of ${instance_id}`));
    assert.deepEqual((await call("conflicts")).conflicts, []);
    assert.equal((await client.listPrompts()).prompts[0].name, "handoff");
    const { messages } = await client.getPrompt({ name: "handoff", arguments: { instance_id } });
    assert.ok(messages[0].content.text.includes(instance_id));

    const { resources } = await client.listResources();
    const resource = resources.find((one) => one.name === instance_id);
    const { contents } = await client.readResource({ uri: resource.uri });
    assert.equal(JSON.parse(contents[0].text).instance_id, instance_id);
    await assert.rejects(client.readResource({ uri: "sessiond://sessions/nobody" }));
    assert.equal((await client.listResourceTemplates()).resourceTemplates.length, 2);
    await client.close();
}

const server = { command: program, args: ["mcp"], env: process.env };

{
    const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
    const { StdioClientTransport } = await load("@modelcontextprotocol/sdk/client/stdio.js");
    const client = new Client({ name: "test", version: "1" });
    await client.connect(new StdioClientTransport(server));
    assert.equal(client.getServerVersion().name, "sessiond");
    await session(client);
    console.log("ok initialize");
}
{
    const { Client } = await load("@modelcontextprotocol/client");
    const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");
    const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode: { pin: "2026-07-28" } } });
    await client.connect(new StdioClientTransport(server));
    assert.equal(client.getNegotiatedProtocolVersion(), "2026-07-28");
    await session(client);
    console.log("ok 2026-07-28");
}
