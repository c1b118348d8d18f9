// A model for tests/lab-agents: answers Anthropic's Messages, OpenAI's Responses and Chat, and Gemini with canned streams.
//   node lab-agents.mjs PORT
// A prompt with RUNTOOL makes the agent run a command, one with LONGTOOL a long one, one with TOUCHFILE one that needs a
// permission; ERR429 is a rate limit and ERR529 an overload; every other prompt is answered.
import { createServer } from "node:http";

const shells = ["Bash", "bash", "exec_command", "shell", "run_shell_command"];
const commands = { RUNTOOL: "echo hi", LONGTOOL: "sleep 30", TOUCHFILE: "touch made-by-the-tool" };
const failures = { ERR429: [429, "rate_limit_error"], ERR529: [529, "overloaded_error"] };

const named = (table, prompt) => Object.entries(table).find(([word]) => prompt.includes(word))?.[1];

/** What the model does: a text, or the call of a shell tool. */
function answer(prompt, isAnswered, tools) {
  const tool = shells.find((name) => tools.includes(name));
  const command = named(commands, prompt);
  if (isAnswered || !command || !tool) return { text: isAnswered ? "The tool has run. All done." : "A plain answer." };
  const input = { exec_command: { cmd: command }, shell: { command: ["bash", "-lc", command] } };
  return { tool, input: input[tool] ?? { command, description: "Runs it" } };
}

const textsOf = (content) => (typeof content === "string" ? [content] : (content ?? []).map((part) => part.text ?? ""));

function messages(body, send) {
  const fromUser = body.messages.filter((message) => message.role === "user");
  const last = fromUser.at(-1)?.content;
  const isAnswered = Array.isArray(last) && last.some((part) => part.type === "tool_result");
  const asked = fromUser
    .flatMap((message) => textsOf(message.content))
    .map((text) => text.replace(/<system-reminder>.*?<\/system-reminder>/gs, ""));
  const prompt = asked.filter((text) => text.trim()).at(-1) ?? "";
  const failure = named(failures, prompt);
  if (failure) return send.json({ type: "error", error: { type: failure[1], message: "planted" } }, failure[0]);
  const { text, tool, input } = answer(prompt, isAnswered, (body.tools ?? []).map((one) => one.name));
  const usage = { input_tokens: 4000, output_tokens: 1 };
  const message = { id: "msg_" + Date.now(), type: "message", role: "assistant", model: body.model, content: [], stop_reason: null, stop_sequence: null, usage };
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
  const { text, tool, input } = answer(textsOf(items[place]?.content).join("\n"), isAnswered, (body.tools ?? []).map((one) => one.name ?? one.type));
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
  if (!tool) event("response.output_text.delta", { item_id: item.id, output_index: 0, content_index: 0, delta: text });
  event("response.output_item.done", { output_index: 0, item });
  event("response.completed", { response });
  send.end();
}

function chat(body, send) {
  const place = body.messages.findLastIndex((message) => message.role === "user");
  const isAnswered = body.messages.slice(place).some((message) => message.role === "tool");
  const prompt = textsOf(body.messages[place]?.content).join("\n");
  const { text, tool, input } = answer(prompt, isAnswered, (body.tools ?? []).map((one) => one.function?.name));
  const call = { index: 0, id: "call_" + Date.now(), type: "function", function: { name: tool, arguments: JSON.stringify(input) } };
  const message = tool ? { role: "assistant", tool_calls: [call] } : { role: "assistant", content: text };
  const finish_reason = tool ? "tool_calls" : "stop";
  const usage = { prompt_tokens: 4000, completion_tokens: 20, total_tokens: 4020 };
  const base = { id: "chatcmpl-" + Date.now(), created: 0, model: body.model, object: "chat.completion" };
  if (!body.stream) return send.json({ ...base, choices: [{ index: 0, message, finish_reason }], usage });
  const chunk = (delta, reason) => send.data({ ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: reason }], usage });
  chunk(message, null);
  chunk({}, finish_reason);
  send.data("[DONE]");
  send.end();
}

function gemini(body, send, isStream) {
  const items = body.contents ?? [];
  const place = items.findLastIndex((item) => item.role === "user" && item.parts.some((part) => part.text));
  const isAnswered = items.slice(place).some((item) => item.parts.some((part) => part.functionResponse));
  const tools = (body.tools ?? []).flatMap((one) => (one.functionDeclarations ?? []).map((declared) => declared.name));
  const { text, tool, input } = answer(textsOf(items[place]?.parts).join("\n"), isAnswered, tools);
  const isJson = body.generationConfig?.responseMimeType === "application/json";
  const plain = isJson ? JSON.stringify({ reasoning: "", next_speaker: "user", model_choice: "flash", complexity_reasoning: "", complexity_score: 1 }) : text;
  const parts = [tool ? { functionCall: { name: tool, args: input } } : { text: plain }];
  const usageMetadata = { promptTokenCount: 4000, candidatesTokenCount: 20, totalTokenCount: 4020 };
  const value = { candidates: [{ content: { role: "model", parts }, finishReason: "STOP", index: 0 }], usageMetadata, modelVersion: "lab" };
  if (!isStream) return send.json(value);
  send.data(value);
  send.end();
}

createServer((request, reply) => {
  let text = "";
  request.on("data", (data) => (text += data));
  request.on("end", () => {
    const send = {
      json: (value, status = 200) => reply.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value)),
      event: (name, value) => send.data(value, `event: ${name}\n`),
      data: (value, before = "") => {
        if (!reply.headersSent) reply.writeHead(200, { "content-type": "text/event-stream" });
        reply.write(`${before}data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
      },
      end: () => reply.end(),
    };
    const path = request.url.split("?")[0];
    try {
      const body = JSON.parse(text || "{}");
      if (path.endsWith("/count_tokens")) send.json({ input_tokens: 1234 });
      else if (path.endsWith("/messages")) messages(body, send);
      else if (path.endsWith("/responses")) responses(body, send);
      else if (path.endsWith("/chat/completions")) chat(body, send);
      else if (path.includes("enerateContent")) gemini(body, send, path.includes("streamGenerateContent"));
      else send.json({ data: [], models: [], object: "list" });
    } catch (error) {
      reply.writeHead(400).end(String(error));
    }
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
