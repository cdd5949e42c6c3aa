// LangChain for JavaScript over chat completions and Responses: answers, streams, tools, agents.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { createAgent } from "langchain";
import { z } from "zod";

const { HEADRACE_BASE_URL: URL, HEADRACE_API_KEY: apiKey, HEADRACE_MODEL: model } = process.env;
const configuration = { baseURL: `${URL}/v1` };
const Villager = z.object({ name: z.enum(["Ada", "Bram"]), town: z.enum(["Oakford", "Millbrook"]) });
const getWeather = tool(async () => JSON.stringify({ sky: "windy", degrees: 14 }), {
  name: "get_weather",
  description: "The weather of a town",
  schema: z.object({ town: z.enum(["Oakford", "Millbrook"]) }),
});
const QUESTION = "What is the weather in Oakford?";

for (const useResponsesApi of [false, true]) {
  const api = useResponsesApi ? "responses" : "chat";
  const llm = new ChatOpenAI({ model, apiKey, configuration, temperature: 0, useResponsesApi });

  test(`${api}: invoke, and a stream that says the same`, async () => {
    const whole = await llm.invoke("Count from 3 to 9.");
    assert.equal(whole.text, "3, 4, 5, 6, 7, 8, 9");
    let all;
    for await (const chunk of await llm.stream("Count from 3 to 9.")) all = all ? all.concat(chunk) : chunk;
    assert.equal(all.text, whole.text);
    assert.deepEqual(all.usage_metadata.output_tokens, whole.usage_metadata.output_tokens);
  });

  test(`${api}: a tool is called and its result used`, async () => {
    const bound = llm.bindTools([getWeather]);
    const first = await bound.invoke([new HumanMessage(QUESTION)]);
    assert.deepEqual(first.tool_calls.map((call) => call.args), [{ town: "Oakford" }]);
    const result = new ToolMessage({
      content: await getWeather.invoke(first.tool_calls[0].args), tool_call_id: first.tool_calls[0].id,
    });
    const last = await bound.invoke([new HumanMessage(QUESTION), first, result]);
    assert.match(last.text, /windy in Oakford/);
  });

  test(`${api}: structured output`, async () => {
    assert.ok(Villager.parse(await llm.withStructuredOutput(Villager).invoke("Give me Ada as JSON.")));
  });

  test(`${api}: an agent`, async () => {
    const agent = createAgent({ model: llm, tools: [getWeather] });
    const { messages } = await agent.invoke({ messages: [{ role: "user", content: QUESTION }] });
    assert.match(messages.at(-1).text, /windy in Oakford/);
  });
}

test("embeddings", async () => {
  const embeddings = new OpenAIEmbeddings({ model: process.env.HEADRACE_EMBEDDING_MODEL, apiKey, configuration });
  assert.equal((await embeddings.embedDocuments(["the mill", "the water"])).length, 2);
});

test("a wrong key is not retried", async () => {
  const wrong = new ChatOpenAI({ model, apiKey: "no-key", configuration });
  await assert.rejects(wrong.invoke("x"), (error) => error.status === 401);
});
