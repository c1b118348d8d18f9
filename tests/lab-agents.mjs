// A model for tests/lab-agents: answers Anthropic's Messages and OpenAI's Responses with canned streams.
//   node lab-agents.mjs PORT
// A prompt with RUNTOOL makes the agent run a command, one with LONGTOOL a long one; every other prompt is answered.
import { createServer } from "node:http";

const shells = ["Bash", "exec_command", "shell"];

/** What the model does: a text, or the call of a shell tool. */
function answer(prompt, isAnswered, tools) {
  const tool = shells.find((name) => tools.includes(name));
  const command = /RUNTOOL/.test(prompt) ? "echo hi" : /LONGTOOL/.test(prompt) ? "sleep 30" : undefined;
  if (isAnswered || !command || !tool) return { text: isAnswered ? "The tool has run. All done." : "A plain answer." };
  const input = { Bash: { command, description: "Runs it" }, exec_command: { cmd: command } };
  return { tool, input: input[tool] ?? { command: ["bash", "-lc", command] } };
}

const textOf = (content) =>
  typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("\n");

function messages(body, send) {
  const fromUser = body.messages.filter((message) => message.role === "user");
  const last = fromUser.at(-1)?.content;
  const isAnswered = Array.isArray(last) && last.some((part) => part.type === "tool_result");
  const asked = fromUser.map((message) => textOf(message.content).replace(/<system-reminder>.*?<\/system-reminder>/gs, ""));
  const prompt = asked.filter((text) => text.trim()).at(-1) ?? "";
  const { text, tool, input } = answer(prompt, isAnswered, (body.tools ?? []).map((one) => one.name));
  const usage = { input_tokens: 4000, output_tokens: 1 };
  const message = { id: "msg_1", type: "message", role: "assistant", model: body.model, content: [], stop_reason: null, stop_sequence: null, usage };
  const block = tool ? { type: "tool_use", id: "toolu_" + Date.now(), name: tool, input: {} } : { type: "text", text: "" };
  const delta = tool ? { type: "input_json_delta", partial_json: JSON.stringify(input) } : { type: "text_delta", text };
  const stop_reason = tool ? "tool_use" : "end_turn";
  if (!body.stream) return send.json({ ...message, content: [{ ...block, ...(tool ? { input } : { text }) }], stop_reason });
  const event = (type, more) => send.event(type, { type, ...more });
  event("message_start", { message });
  event("content_block_start", { index: 0, content_block: block });
  event("content_block_delta", { index: 0, delta });
  event("content_block_stop", { index: 0 });
  event("message_delta", { delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: 20 } });
  event("message_stop", {});
  send.end();
}

function responses(body, send) {
  const items = Array.isArray(body.input) ? body.input : [{ type: "message", role: "user", content: body.input }];
  const place = items.findLastIndex((item) => (item.type ?? "message") === "message" && item.role === "user");
  const isAnswered = items.slice(place).some((item) => item.type?.endsWith("_output"));
  const { text, tool, input } = answer(textOf(items[place]?.content), isAnswered, (body.tools ?? []).map((one) => one.name ?? one.type));
  const id = String(Date.now());
  const item = tool
    ? { type: "function_call", id: "fc_" + id, call_id: "call_" + id, name: tool, arguments: JSON.stringify(input), status: "completed" }
    : { type: "message", role: "assistant", id: "msg_" + id, status: "completed", content: [{ type: "output_text", text, annotations: [] }] };
  const usage = { input_tokens: 4000, input_tokens_details: { cached_tokens: 0 }, output_tokens: 20, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 4020 };
  const response = { id: "resp_" + id, object: "response", created_at: 0, status: "completed", model: body.model, output: [item], usage };
  if (!body.stream) return send.json(response);
  const event = (type, more) => send.event(type, { type, ...more });
  event("response.created", { response: { ...response, status: "in_progress", output: [], usage: null } });
  event("response.output_item.added", { output_index: 0, item: { ...item, status: "in_progress" } });
  event("response.output_item.done", { output_index: 0, item });
  event("response.completed", { response });
  send.end();
}

createServer((request, reply) => {
  let text = "";
  request.on("data", (data) => (text += data));
  request.on("end", () => {
    const send = {
      json: (value) => reply.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value)),
      event: (name, value) => {
        if (!reply.headersSent) reply.writeHead(200, { "content-type": "text/event-stream" });
        reply.write(`event: ${name}\ndata: ${JSON.stringify(value)}\n\n`);
      },
      end: () => reply.end(),
    };
    const path = request.url.split("?")[0];
    try {
      const body = JSON.parse(text || "{}");
      if (path.endsWith("/count_tokens")) send.json({ input_tokens: 1234 });
      else if (path.endsWith("/messages")) messages(body, send);
      else if (path.endsWith("/responses")) responses(body, send);
      else send.json({ data: [], models: [], object: "list" });
    } catch (error) {
      reply.writeHead(400).end(String(error));
    }
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
