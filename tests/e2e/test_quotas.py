"""Limits of keys, as clients of a mesh with two gateways meet them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from helpers.command import headrace
from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh, start, stop
from helpers.tiny_encoders import save_encoder, save_modules, tiny_encoder

BURST, PER_MINUTE = 60, 12
TENANT = "acme"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    encoder = save_encoder(tmp_path_factory.mktemp("encoder") / "toy", tiny_encoder())
    save_modules(encoder, pooling={"pooling_mode": "mean"}, normalise=True)
    models = ("--model", "default", "--model", f"{encoder}=toy")
    running = start(
        tmp_path_factory.mktemp("limited"), *models, "--gateways", "2", "--auth", "keys"
    )
    yield running
    stop(running)


@dataclass(frozen=True)
class Key:
    """A key with limits, and what its holder uses."""

    mesh: RunningMesh
    secret: str
    api: openai.AsyncOpenAI

    async def complete(self, **changes: Any) -> Any:
        asked: Any = {"model": "valley", "prompt": "The mill", "max_tokens": 2} | changes
        return await self.api.completions.with_raw_response.create(**asked)

    async def limits(self) -> dict[str, dict[str, str]]:
        """Return what GET /v2/key has of each limit, by its name."""
        async with httpx.AsyncClient(base_url=self.mesh.url, trust_env=False) as http:
            bearer = {"authorization": f"Bearer {self.secret}"}
            answer = await http.get("/v2/key", headers=bearer)
        return {each["limit"]: each for each in answer.raise_for_status().json()["limits"]}


@pytest.fixture
async def made(mesh: RunningMesh) -> AsyncIterator[Any]:
    """Make a key with limits, which are options of `headrace key create`."""
    async with AsyncExitStack() as stack:

        async def make(*limits: str) -> Key:
            options = ("key", "create", "--tenant", TENANT, *limits, "--json")
            ran = await headrace(*options, "--state-dir", str(mesh.folder), folder=mesh.folder)
            assert ran.status == 0, ran.out + ran.err
            secret = json.loads(ran.out)["key"]
            api = openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key=secret, max_retries=0)
            return Key(mesh, secret, await stack.enter_async_context(api))

        yield make


async def refused(call: Any) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as error:
        await call
    return error.value


@pytest.mark.timeout(240)
async def test_a_burst_over_two_gateways_is_granted_its_limit_and_the_rest_when_told(
    made: Any,
) -> None:
    key = await made("--requests-per-minute", str(PER_MINUTE))
    burst = await asyncio.gather(*(key.complete() for _ in range(BURST)), return_exceptions=True)
    errors = [each for each in burst if isinstance(each, BaseException)]
    assert len(burst) - len(errors) == PER_MINUTE
    for error in errors:
        assert isinstance(error, openai.RateLimitError), error
        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
        assert error.response.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
        assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
    last = await refused(key.complete())
    wait_s = int(last.response.headers["retry-after"])
    assert 40 < wait_s <= 61
    await asyncio.sleep(wait_s)
    await key.complete()


async def test_a_day_that_is_used_up_is_not_retried_and_says_when_it_begins_again(
    made: Any,
) -> None:
    key = await made("--requests-per-day", "2")
    for left in ("1", "0"):
        answer = await key.complete()
        assert answer.headers["x-ratelimit-remaining-requests"] == left
    retrying = Key(key.mesh, key.secret, key.api.with_options(max_retries=5))
    error = await refused(retrying.complete())
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert error.response.headers["x-should-retry"] == "false"
    assert "It resets at 20" in error.message
    assert "T00:00:00Z, in " in error.message


async def test_what_a_request_does_not_use_is_returned_when_it_ends(made: Any) -> None:
    key = await made("--tokens-per-minute", "500")
    usage = {"include_usage": True}
    stream = await key.complete(max_tokens=100, stop=[" "], stream=True, stream_options=usage)
    assert int(stream.headers["x-ratelimit-remaining-tokens"]) < 400
    used = [chunk.usage.total_tokens async for chunk in stream.parse() if chunk.usage][-1]
    assert used < 50

    async def is_returned() -> bool:
        use = (await key.limits())["tokens_per_minute"]
        return bool(use["used"] == str(used))

    await eventually(is_returned, within_s=10)
    error = await refused(key.complete(max_tokens=500, n=2))
    assert error.code == "insufficient_quota"
    assert "The request alone exceeds tokens_per_minute of key" in error.message


async def test_a_request_under_way_counts_until_it_has_ended(made: Any) -> None:
    key = await made("--concurrent-requests", "1")
    stream = await key.complete(max_tokens=200, stream=True)
    error = await refused(key.complete())
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    await stream.http_response.aclose()

    async def admitted() -> bool:
        try:
            await key.complete()
        except openai.RateLimitError:
            return False
        return True

    await eventually(admitted, within_s=10)


async def test_embeddings_count_and_so_do_repeats_once(made: Any) -> None:
    key = await made("--tokens-per-day", "60", "--requests-per-day", "3")
    answer = await key.api.embeddings.with_raw_response.create(model="toy", input=["the mill"] * 4)
    used = answer.parse().usage.total_tokens
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(60 - used)
    repeated = {"Idempotency-Key": "once"}
    for _ in range(3):
        await key.complete(extra_headers=repeated)
    limits = await key.limits()
    assert limits["requests_per_day"]["used"] == "2"
    error = await refused(key.api.embeddings.create(model="toy", input=["the mill"] * 40))
    assert error.code == "insufficient_quota"
    assert (await key.limits())["requests_per_day"]["used"] == "2"


async def test_a_command_shows_what_is_left(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await made("--requests-per-day", "7", "--budget-per-month", "2.50")
    await key.complete()
    monkeypatch.setenv("HEADRACE_API_KEY", key.secret)
    ran = await headrace("key", "limits", "--json", "--url", key.mesh.url, folder=key.mesh.folder)
    assert ran.status == 0, ran.err
    shown = {each["limit"]: each for each in json.loads(ran.out)["limits"]}
    assert (shown["requests_per_day"]["used"], shown["requests_per_day"]["remaining"]) == (1, 6)
    assert shown["budget_per_month"]["value"] == "2.50 USD"
