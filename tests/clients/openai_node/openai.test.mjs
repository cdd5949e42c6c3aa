// OpenAI's package for Node: its quick start, streams, tools, parsing, Responses, files, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { HEADRACE_BASE_URL: URL, HEADRACE_API_KEY: KEY, HEADRACE_MODEL: model } = process.env;
const baseURL = `${URL}/v1`;
const client = new OpenAI({ baseURL, apiKey: KEY });
const COUNT = { model, temperature: 0, messages: [{ role: "user", content: "Count from 3 to 9." }] };
const LONG = { model, ignore_eos: true, max_tokens: 800, messages: [{ role: "user", content: "Who are you?" }] };
const WEATHER = [{ role: "user", content: "What is the weather in Oakford?" }];
const Villager = z.object({ name: z.enum(["Ada", "Bram"]), town: z.enum(["Oakford", "Millbrook"]) });

test("an answer, and a stream that says the same", async () => {
  const whole = await client.chat.completions.create(COUNT);
  assert.equal(whole.choices[0].message.content, "3, 4, 5, 6, 7, 8, 9");
  let text = "";
  let usage;
  const chunks = await client.chat.completions.create({
    ...COUNT, stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(usage, whole.usage);
});

test("a stream with events, and its final completion", async () => {
  const stream = client.chat.completions.stream(COUNT);
  let seen = "";
  stream.on("content.delta", (event) => { seen += event.delta; });
  const done = await stream.finalChatCompletion();
  assert.equal(done.choices[0].message.content, seen);
});

test("runTools calls the function and answers with its result", async () => {
  let asked;
  const runner = client.chat.completions.runTools({
    model,
    temperature: 0,
    messages: WEATHER,
    tools: [{
      type: "function",
      function: {
        name: "get_weather",
        description: "The weather of a town",
        parameters: {
          type: "object",
          properties: { town: { type: "string", enum: ["Oakford", "Millbrook"] } },
          required: ["town"],
          additionalProperties: false,
        },
        strict: true,
        parse: JSON.parse,
        function: (given) => { asked = given; return JSON.stringify({ sky: "windy", degrees: 14 }); },
      },
    }],
  });
  const answer = await runner.finalContent();
  assert.deepEqual(asked, { town: "Oakford" });
  assert.match(answer, /windy in Oakford/);
});

test("structured output is parsed by zod", async () => {
  const done = await client.chat.completions.parse({
    model,
    temperature: 0,
    messages: [{ role: "user", content: "Give me Ada as JSON." }],
    response_format: zodResponseFormat(Villager, "villager"),
  });
  assert.ok(Villager.parse(done.choices[0].message.parsed));
});

test("embeddings, as numbers and in base64", async () => {
  const input = ["the mill", "the water"];
  const asked = { model: process.env.HEADRACE_EMBEDDING_MODEL, input };
  const packed = await client.embeddings.create(asked);
  const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
  assert.equal(packed.data.length, 2);
  assert.equal(packed.data[0].embedding.length, plain.data[0].embedding.length);
  assert.ok(Math.abs(packed.data[1].embedding[0] - plain.data[1].embedding[0]) < 1e-6);
});

test("responses: created, streamed, continued, parsed", async () => {
  const first = await client.responses.create({ model, input: "Count from 3 to 9.", temperature: 0 });
  assert.equal(first.output_text, "3, 4, 5, 6, 7, 8, 9");
  const next = await client.responses.create({
    model, input: "Who are you?", previous_response_id: first.id, max_output_tokens: 16,
  });
  assert.equal(next.previous_response_id, first.id);
  const stream = client.responses.stream({ model, input: "Count from 3 to 9.", temperature: 0 });
  const types = [];
  for await (const event of stream) types.push(event.type);
  assert.equal(types[0], "response.created");
  assert.equal(types.at(-1), "response.completed");
  assert.equal((await stream.finalResponse()).output_text, first.output_text);
  const parsed = await client.responses.parse({
    model,
    temperature: 0,
    input: "Give me Ada as JSON.",
    text: { format: zodTextFormat(Villager, "villager") },
  });
  assert.ok(Villager.parse(parsed.output_parsed));
  assert.equal((await client.responses.retrieve(first.id)).output_text, first.output_text);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("a batch: its file, its wait and its results", async () => {
  const line = { custom_id: "one", method: "POST", url: "/v1/chat/completions", body: COUNT };
  const file = await client.files.create({
    file: await toFile(Buffer.from(`${JSON.stringify(line)}\n`), "batch.jsonl"), purpose: "batch",
  });
  let batch = await client.batches.create({
    input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h",
  });
  const until = Date.now() + 120_000;
  while (!["completed", "failed", "expired"].includes(batch.status) && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    batch = await client.batches.retrieve(batch.id);
  }
  assert.equal(batch.status, "completed", JSON.stringify(batch.errors));
  const result = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
  assert.equal(result.custom_id, "one");
  assert.equal(result.response.body.choices[0].message.content, "3, 4, 5, 6, 7, 8, 9");
});

test("a stream that is aborted ends the request", async () => {
  const stream = await client.chat.completions.create({ ...LONG, stream: true }).withResponse();
  const id = stream.response.headers.get("x-request-id");
  for await (const chunk of stream.data) if (chunk.choices[0]?.delta.content) break;
  const headers = { authorization: `Bearer ${KEY}` };
  const ended = await fetch(`${URL}/v2/requests/${id}?wait=30s`, { headers });
  assert.equal((await ended.json()).state, "REQUEST_STATE_ENDED");

  const abort = new AbortController();
  const asked = client.chat.completions.create({ ...LONG, stream: true }, { signal: abort.signal });
  await assert.rejects(async () => {
    for await (const _ of await asked) abort.abort();
    abort.signal.throwIfAborted();
  });
});

test("errors have their classes, codes and request ids", async () => {
  const wrong = new OpenAI({ baseURL, apiKey: "no-key", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    return error.code === "invalid_api_key" && Boolean(error.requestID);
  });
  await assert.rejects(client.chat.completions.create({ ...COUNT, model: "nothing" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    return error.code === "model_not_found";
  });
  await assert.rejects(client.chat.completions.create({ ...COUNT, temperature: 9 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    return error.param === "temperature";
  });
  const hasty = client.chat.completions.create(LONG, { timeout: 20, maxRetries: 0 });
  await assert.rejects(hasty, OpenAI.APIConnectionTimeoutError);
});

test("models and moderation", async () => {
  const names = [];
  for await (const each of client.models.list()) names.push(each.id);
  assert.ok(names.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
  const judged = await client.moderations.create({
    model: process.env.HEADRACE_MODERATION_MODEL, input: "you are kind",
  });
  assert.equal(typeof judged.results[0].flagged, "boolean");
});
