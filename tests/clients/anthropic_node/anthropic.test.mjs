// Anthropic's package for Node: messages, streams, tools in a loop, counting, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const { HEADRACE_BASE_URL: baseURL, HEADRACE_API_KEY: apiKey, HEADRACE_MODEL: model } = process.env;
const client = new Anthropic({ baseURL, apiKey });
const COUNT = {
  model, max_tokens: 64, temperature: 0, messages: [{ role: "user", content: "Count from 3 to 9." }],
};
const WEATHER = {
  name: "get_weather",
  description: "The weather of a town",
  input_schema: {
    type: "object",
    properties: { town: { type: "string", enum: ["Oakford", "Millbrook"] } },
    required: ["town"],
  },
};

test("a message, and a stream that says the same", async () => {
  const whole = await client.messages.create(COUNT);
  assert.deepEqual(whole.content.map((block) => block.text), ["3, 4, 5, 6, 7, 8, 9"]);
  assert.equal(whole.stop_reason, "end_turn");
  let text = "";
  const stream = client.messages.stream(COUNT).on("text", (part) => { text += part; });
  const done = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(done.usage.output_tokens, whole.usage.output_tokens);
  const types = [];
  for await (const event of await client.messages.create({ ...COUNT, stream: true })) types.push(event.type);
  assert.equal(types[0], "message_start");
  assert.equal(types.at(-1), "message_stop");
});

test("a tool is used and its result answered with", async () => {
  const messages = [{ role: "user", content: "What is the weather in Oakford?" }];
  const asked = { model, max_tokens: 128, temperature: 0, tools: [WEATHER] };
  const first = await client.messages.create({ ...asked, messages });
  const use = first.content.find((block) => block.type === "tool_use");
  assert.equal(first.stop_reason, "tool_use");
  assert.deepEqual(use.input, { town: "Oakford" });
  const result = {
    type: "tool_result", tool_use_id: use.id, content: JSON.stringify({ sky: "windy", degrees: 14 }),
  };
  messages.push({ role: "assistant", content: first.content }, { role: "user", content: [result] });
  const last = await client.messages.create({ ...asked, messages });
  assert.match(last.content[0].text, /windy in Oakford/);
});

test("tokens are counted as they are used", async () => {
  const { input_tokens } = await client.messages.countTokens({ model, messages: COUNT.messages });
  assert.equal((await client.messages.create(COUNT)).usage.input_tokens, input_tokens);
});

test("errors have their classes", async () => {
  const wrong = new Anthropic({ baseURL, apiKey: "no-key", maxRetries: 0 });
  await assert.rejects(wrong.messages.create(COUNT), Anthropic.AuthenticationError);
  const unknown = client.messages.create({ ...COUNT, model: "nothing" });
  await assert.rejects(unknown, Anthropic.NotFoundError);
  await assert.rejects(client.messages.create({ ...COUNT, temperature: 9 }), Anthropic.BadRequestError);
});

test("a stream that is aborted throws the client's own error", async () => {
  const stream = client.messages.stream({ ...COUNT, max_tokens: 800 });
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
});
