// Vercel's AI SDK through its three providers: text, streams, objects, tools, embeddings, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const { HEADRACE_BASE_URL: URL, HEADRACE_API_KEY: apiKey, HEADRACE_MODEL: name } = process.env;
const baseURL = `${URL}/v1`;
const openai = createOpenAI({ baseURL, apiKey });
const compatible = createOpenAICompatible({
  name: "headrace", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true,
});
const anthropic = createAnthropic({ baseURL, apiKey });
const MODELS = {
  responses: openai(name),
  chat: openai.chat(name),
  compatible: compatible(name),
  messages: anthropic(name),
};
const Villager = z.object({ name: z.enum(["Ada", "Bram"]), town: z.enum(["Oakford", "Millbrook"]) });
const get_weather = tool({
  description: "The weather of a town",
  inputSchema: z.object({ town: z.enum(["Oakford", "Millbrook"]) }),
  execute: async () => ({ sky: "windy", degrees: 14 }),
});

for (const [api, model] of Object.entries(MODELS)) {
  const asked = { model, temperature: 0, maxOutputTokens: 128 };

  test(`${api}: text, and a stream that says the same`, async () => {
    const prompt = "Count from 3 to 9.";
    const whole = await generateText({ ...asked, prompt });
    assert.equal(whole.text, "3, 4, 5, 6, 7, 8, 9");
    assert.equal(whole.finishReason, "stop");
    const stream = streamText({ ...asked, prompt });
    let text = "";
    for await (const part of stream.textStream) text += part;
    assert.equal(text, whole.text);
    assert.deepEqual((await stream.usage).outputTokens, whole.usage.outputTokens);
  });

  test(`${api}: tools run until the answer`, async () => {
    const loop = { ...asked, tools: { get_weather }, stopWhen: stepCountIs(4), prompt: "What is the weather in Oakford?" };
    const done = await generateText(loop);
    assert.deepEqual(done.steps[0].toolCalls.map((call) => call.input), [{ town: "Oakford" }]);
    assert.match(done.text, /windy in Oakford/);
    const stream = streamText(loop);
    await stream.consumeStream();
    assert.match(await stream.text, /windy in Oakford/);
  });

  test(`${api}: objects, whole and streamed`, async () => {
    const wish = { ...asked, schema: Villager, prompt: "Give me Ada as JSON." };
    const { object } = await generateObject(wish);
    assert.ok(Villager.parse(object));
    const stream = streamObject(wish);
    for await (const _ of stream.partialObjectStream);
    assert.deepEqual(await stream.object, object);
  });
}

test("output beside tools", async () => {
  const done = await generateText({
    model: MODELS.chat,
    temperature: 0,
    maxOutputTokens: 128,
    tools: { get_weather },
    stopWhen: stepCountIs(4),
    output: Output.object({ schema: Villager }),
    prompt: "Give me Ada as JSON.",
  });
  assert.ok(Villager.parse(done.output));
});

test("embeddings", async () => {
  const model = openai.embedding(process.env.HEADRACE_EMBEDDING_MODEL);
  const { embeddings } = await embedMany({ model, values: ["the mill", "the water"] });
  assert.equal(embeddings.length, 2);
});

test("an aborted stream ends", async () => {
  const abort = new AbortController();
  const parts = [];
  const stream = streamText({
    model: MODELS.compatible, prompt: "Who are you?", maxOutputTokens: 800, abortSignal: abort.signal,
    providerOptions: { headrace: { ignore_eos: true } },
  });
  for await (const part of stream.fullStream) {
    parts.push(part.type);
    if (part.type === "text-delta") abort.abort();
  }
  assert.equal(parts.at(-1), "abort");
});

test("errors say their status and whether to retry", async () => {
  await assert.rejects(generateText({ model: compatible("nothing"), prompt: "x" }), (error) => {
    assert.ok(APICallError.isInstance(error));
    return error.statusCode === 404 && !error.isRetryable && /nothing/.test(error.message);
  });
});
