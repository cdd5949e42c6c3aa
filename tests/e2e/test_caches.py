"""Answers and vectors that come from a cache, in a whole mesh with keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.command import headrace
from helpers.fresh_mesh import FreshMesh, fresh_mesh

USE = {"x-headrace-cache": "use"}
STEP_MS, TOKENS = 20, 40


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    options = ("--gateways", "2", "--scripted-step-ms", str(STEP_MS), "--auth", "keys")
    async with fresh_mesh(tmp_path, *options) as running:
        yield running


async def key_of(mesh: FreshMesh, tenant: str, *, allowed: bool) -> str:
    flag = "--response-cache" if allowed else "--no-response-cache"
    for command in (
        ("tenant", "create", tenant, flag),
        ("key", "create", "--tenant", tenant, "--json"),
    ):
        ran = await headrace(*command, folder=mesh.folder)
        assert ran.status == 0, ran.err
    key: str = json.loads(ran.out)["key"]
    return key


def client_of(mesh: FreshMesh, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key=key)


async def complete(client: openai.AsyncOpenAI, prompt: str = "Once", **fields: Any) -> Any:
    """Return a completion that wants the cache, and its header."""
    chosen: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0} | fields
    raw = await client.completions.with_raw_response.create(
        model="scripted",
        prompt=prompt,
        extra_headers=chosen.pop("headers", USE),
        extra_body={"ignore_eos": True},
        **chosen,
    )
    return raw.parse(), raw.headers.get("x-headrace-cache")


@pytest.mark.timeout(240)
async def test_equal_requests_of_a_tenant_that_allows_it_run_once(mesh: FreshMesh) -> None:
    allowed = client_of(mesh, await key_of(mesh, "acme", allowed=True))
    other = client_of(mesh, await key_of(mesh, "bolt", allowed=True))
    refuses = client_of(mesh, await key_of(mesh, "cord", allowed=False))
    async with allowed, other, refuses:
        first, outcome = await complete(allowed)
        assert outcome == "miss"
        # From both gateways: one has it in memory, and both have it from the broker.
        again = [await complete(allowed) for _ in range(4)]
        assert [outcome for _, outcome in again] == ["hit"] * 4
        for found, _ in again:
            assert found.choices[0].text == first.choices[0].text
            assert found.usage.completion_tokens == TOKENS
            assert found.id != first.id
        await streamed(allowed, first.choices[0].text)
        assert (await complete(allowed, temperature=1, seed=7))[1] == "miss"
        assert (await complete(allowed, temperature=1, seed=7))[1] == "hit"
        assert (await complete(allowed, temperature=1, seed=8))[1] == "miss"
        assert (await complete(allowed, temperature=1))[1] == "bypass"
        assert (await complete(other))[1] == "miss", "another tenant's"
        assert (await complete(refuses))[1] == "bypass"
        assert (await complete(allowed, headers={}))[1] is None
        with pytest.raises(openai.BadRequestError, match="x-headrace-cache"):
            await complete(allowed, headers={"x-headrace-cache": "always"})
        at_once = await asyncio.gather(*(complete(allowed, "At once") for _ in range(12)))
        texts = {found.choices[0].text for found, _ in at_once}
        # One for each gateway at most.
        assert len(texts) == 1
        assert 1 <= [outcome for _, outcome in at_once].count("miss") <= 2


async def streamed(client: openai.AsyncOpenAI, text: str) -> None:
    raw = await client.completions.with_raw_response.create(
        model="scripted",
        prompt="Once",
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
        extra_headers=USE,
        extra_body={"ignore_eos": True},
    )
    assert raw.headers["x-headrace-cache"] == "hit"
    pieces = [chunk.choices[0].text async for chunk in raw.parse() if chunk.choices]
    assert "".join(pieces) == text
