"""What callers with limits read in every answer, through Envoy and over gRPC."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import httpx
import openai
import pytest

from headrace.errors import InsufficientQuota, QuotaViolation, RateLimitExceeded
from headrace.internal.v1.quota_pb2 import LimitKind, LimitState
from headrace.rpc.status import from_rpc_error
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from helpers.api_scripts import says
from helpers.prompt_scripts import PROMPTS
from helpers.scripted_admission import NOW_MS, ScriptedAdmission

LIMITS = [
    LimitState(
        kind=LimitKind.LIMIT_KIND_REQUESTS_PER_MINUTE,
        limit=20,
        remaining=19,
        reset_ms=NOW_MS + 60_000,
    ),
    LimitState(
        kind=LimitKind.LIMIT_KIND_TOKENS_PER_DAY,
        limit=4000,
        remaining=3900,
        reset_ms=NOW_MS + 9_000_000,
    ),
]
SHOWN = {
    "x-ratelimit-limit-requests": "20",
    "x-ratelimit-remaining-requests": "19",
    "x-ratelimit-reset-requests": "1m0s",
    "x-ratelimit-limit-tokens": "4000",
    "x-ratelimit-remaining-tokens": "3900",
    "x-ratelimit-reset-tokens": "2h30m0s",
}
ASK = GenerateRequest(model="valley", prompt="Hello")
COMPLETION = {"model": "valley", "prompt": "Hello"}
CALLS = [
    ("/v1/completions", COMPLETION),
    ("/v1/completions", COMPLETION | {"stream": True}),
    ("/v1/completions", COMPLETION | {"prompt": ["a", "b"]}),
    ("/v1/chat/completions", {"model": "valley", "messages": [{"role": "user", "content": "Hi"}]}),
    ("/v2/models/valley:generate", {"prompt": "Hello"}),
    ("/v2/models/valley:streamGenerate", {"prompt": "Hello"}),
]


def violation(limit: str) -> QuotaViolation:
    return QuotaViolation(limit, "tenant", "tenants/acme", "", 20, 20, 1)


def rate_limited(limit: str) -> RateLimitExceeded:
    error = RateLimitExceeded("the limit is reached", retry_after_s=11.2)
    error.violation = violation(limit)
    return error


def shown(headers: httpx.Headers) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.startswith("x-ratelimit-")}


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_answers_and_streams_say_what_is_left(
    http: httpx.AsyncClient, admission: ScriptedAdmission, path: str, body: dict[str, object]
) -> None:
    admission.limits = LIMITS
    answer = await http.post(path, json=body)
    assert (answer.status_code, shown(answer.headers)) == (200, SHOWN)


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_so_do_refusals(
    http: httpx.AsyncClient, admission: ScriptedAdmission, path: str, body: dict[str, object]
) -> None:
    admission.limits, admission.quota_refusal = LIMITS, rate_limited("requests_per_minute")
    answer = await http.post(path, json=body)
    assert (answer.status_code, shown(answer.headers)) == (429, SHOWN)
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("12", "11200")
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refused", [False, True])
async def test_messages_have_anthropics_headers_alone(
    http: httpx.AsyncClient, admission: ScriptedAdmission, stream: bool, refused: bool
) -> None:
    admission.limits = LIMITS
    admission.quota_refusal = rate_limited("requests_per_minute") if refused else None
    body = {"model": "valley", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    answer = await http.post("/v1/messages", json=body | {"stream": stream})
    assert (answer.status_code, shown(answer.headers)) == (429 if refused else 200, {})
    prefix = "anthropic-ratelimit-"
    reset = [f"{prefix}{kind}-reset" for kind in ("requests", "tokens")]
    found = {name: text for name, text in answer.headers.items() if name.startswith(prefix)}
    assert found.keys() >= set(reset)
    assert all(datetime.fromisoformat(found.pop(name)).tzinfo is UTC for name in reset)
    assert found == {
        f"{prefix}requests-limit": "20",
        f"{prefix}requests-remaining": "19",
        f"{prefix}tokens-limit": "4000",
        f"{prefix}tokens-remaining": "3900",
    }


async def test_without_limits_no_header_is_sent(http: httpx.AsyncClient) -> None:
    assert shown((await http.post("/v1/completions", json=COMPLETION)).headers) == {}


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ("tokens_per_minute", "tokens"),
        ("requests_per_minute", "requests"),
        ("concurrent_requests", "requests"),
    ],
)
async def test_the_openai_client_reads_which_limit_it_was(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission, limit: str, kind: str
) -> None:
    admission.quota_refusal = rate_limited(limit)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.completions.create(model="valley", prompt="Hello")
    assert refused.value.body == {
        "message": "the limit is reached",
        "type": kind,
        "param": None,
        "code": "rate_limit_exceeded",
    }


async def test_a_quota_that_is_used_up_is_not_to_be_retried(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.quota_refusal = InsufficientQuota("used up", retry_after_s=30_000)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.with_options(max_retries=3).completions.create(model="valley", prompt="Hello")
    assert (refused.value.type, refused.value.code) == ("insufficient_quota",) * 2
    headers = refused.value.response.headers
    assert (headers["x-should-retry"], headers["retry-after"]) == ("false", "30000")
    assert len(admission.checked) == 1


async def test_grpc_has_them_as_initial_metadata(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.limits = LIMITS
    stub = GenerationServiceStub(channel)
    unary, stream = stub.Generate(ASK), stub.StreamGenerate(ASK)
    for call in (unary, stream):
        assert SHOWN.items() <= dict(await call.initial_metadata()).items()
    await unary
    assert [event async for event in stream][-1].HasField("finish")


async def test_grpc_has_them_in_refusals_which_name_the_limit(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.limits, admission.quota_refusal = LIMITS, rate_limited("tokens_per_minute")
    call = GenerationServiceStub(channel).Generate(ASK)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert SHOWN.items() <= dict(refused.value.initial_metadata()).items()
    error = from_rpc_error(refused.value)
    assert (type(error), error.retry_after_s) == (RateLimitExceeded, 11.2)
    assert error.violation == violation("tokens_per_minute")


async def test_pages_of_other_origins_may_read_them(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.limits = LIMITS
    answer = await http.post(
        "/v1/completions", json=COMPLETION, headers={"origin": "http://localhost:3000"}
    )
    exposed = answer.headers["access-control-expose-headers"].split(",")
    assert {*SHOWN, "retry-after", "retry-after-ms", "x-should-retry"} <= set(exposed)


async def test_of_several_prompts_no_more_are_sent_at_once_than_limits_admit(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.script, admission.quota = says, 2
    await client.completions.create(model="valley", prompt=PROMPTS)
    assert len(admission.generations) == len(PROMPTS)
    assert admission.most_open == 2
