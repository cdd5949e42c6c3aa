// headrace.v1 with stubs made from proto/: over gRPC-Web, as a page calls it, and over gRPC.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { HEADRACE_BASE_URL: baseUrl, HEADRACE_API_KEY: KEY, HEADRACE_MODEL: model, HEADRACE_PROTO: PROTO } = process.env;
execFileSync("node_modules/.bin/buf", ["generate", PROTO, "--template", "buf.gen.yaml", "--path", `${PROTO}/headrace/v1`, "--path", `${PROTO}/google/rpc`], { stdio: "inherit" });
const { GenerationService } = await import("./gen/headrace/v1/generation_pb.js");
const { ModelService } = await import("./gen/headrace/v1/models_pb.js");
const { RequestService, RequestState } = await import("./gen/headrace/v1/requests_pb.js");
const { BadRequestSchema, ErrorInfoSchema } = await import("./gen/google/rpc/error_details_pb.js");

const transport = (key) => createGrpcWebTransport({
  baseUrl,
  interceptors: [(next) => (call) => {
    call.header.set("authorization", `Bearer ${key}`);
    return next(call);
  }],
});
const generation = createClient(GenerationService, transport(KEY));
const requests = createClient(RequestService, transport(KEY));
const messages = [{ role: "user", content: "Count from 3 to 9." }];
const COUNT = { model, messages, parameters: { temperature: 0 } };
const LONG = { model, prompt: "x", seed: 7n, parameters: { maxTokens: 60, ignoreEos: true } };

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return ConnectError.from(error);
  }
  assert.fail("it was served");
}

async function ended(requestId) {
  const found = await requests.getRequest({ requestId, wait: { seconds: 30n } });
  return found.state === RequestState.ENDED;
}

test("a unary call, and a stream that says the same", async () => {
  const { models } = await createClient(ModelService, transport(KEY)).listModels({});
  assert.ok(models.some((each) => each.name === model));
  const whole = await generation.generate(COUNT);
  assert.equal(whole.choices[0].text, "3, 4, 5, 6, 7, 8, 9");
  let text = "";
  const kinds = [];
  for await (const { event } of generation.streamGenerate(COUNT)) {
    kinds.push(event.case);
    if (event.case === "delta") text += event.value.text;
  }
  assert.equal(text, whole.choices[0].text);
  assert.deepEqual([kinds[0], kinds.at(-1)], ["started", "finish"]);
});

test("errors have their details", async () => {
  const invalid = await refused(() => generation.generate({ ...COUNT, parameters: { topP: 7 } }));
  assert.equal(invalid.code, Code.InvalidArgument);
  assert.equal(invalid.findDetails(ErrorInfoSchema)[0].reason, "INVALID_REQUEST");
  assert.equal(invalid.findDetails(BadRequestSchema)[0].fieldViolations[0].field, "parameters.top_p");
  const denied = await refused(() => createClient(GenerationService, transport("no-key")).generate(COUNT));
  assert.equal(denied.code, Code.Unauthenticated);
  assert.equal(denied.findDetails(ErrorInfoSchema)[0].reason, "INVALID_API_KEY");
});

test("a stream is resumed by its id and position", async () => {
  const requestId = `web-${Date.now()}`;
  await requests.createRequest({ ...LONG, requestId, detached: true });
  const read = async (after, most) => {
    let text = "";
    let position = 0;
    for await (const { event } of requests.attachRequest({ requestId, after })) {
      if (event.case !== "delta") continue;
      text += event.value.text;
      position = event.value.firstIndex + event.value.tokenIds.length;
      if (position >= most) break;
    }
    return { text, position };
  };
  const first = await read("", 20);
  const rest = await read(`${first.position}`, Infinity);
  assert.equal(first.text + rest.text, (await generation.generate(LONG)).choices[0].text);
});

test("a deadline and an abort end the request", async () => {
  for (const [name, options] of [["deadline", { timeoutMs: 150 }], ["abort", { signal: AbortSignal.timeout(150) }]]) {
    const requestId = `${name}-${Date.now()}`;
    const parameters = { maxTokens: 900, ignoreEos: true };
    const error = await refused(() => generation.generate({ ...LONG, parameters, requestId, patience: { seconds: 30n } }, options));
    assert.ok([Code.DeadlineExceeded, Code.Canceled].includes(error.code), error.message);
    const state = await ended(requestId).catch((missing) => ConnectError.from(missing).code === Code.NotFound);
    assert.ok(state);
  }
});

test("native gRPC, with the protos loaded as they are", async () => {
  const loaded = loader.loadSync("headrace/v1/generation.proto", { includeDirs: [PROTO] });
  const { GenerationService: Stub } = grpc.loadPackageDefinition(loaded).headrace.v1;
  const stub = new Stub(new globalThis.URL(baseUrl).host, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${KEY}`);
  let text = "";
  for await (const event of stub.StreamGenerate(COUNT, metadata)) text += event.delta?.text ?? "";
  assert.equal(text, "3, 4, 5, 6, 7, 8, 9");
  stub.close();
});
