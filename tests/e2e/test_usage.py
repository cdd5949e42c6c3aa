"""What clients count for themselves, what OpenAI's usage API says, and what `headrace usage` says
are the same numbers, to the token and to the nano-unit."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import openai
import pytest

from helpers.command import headrace
from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh, start, stop

INPUT_NANOS, OUTPUT_NANOS = 150, 600
PRICE = ("--input", "0.15", "--cached-input", "0.15", "--output", "0.60", "--per", "1M")
PROMPTS = ("Hello", "Tell me of the valley", "Why?", "And then what came of it")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    running = start(tmp_path_factory.mktemp("usage"), *("--engine", "scripted", "--auth", "keys"))
    yield running
    stop(running)


async def command(mesh: RunningMesh, *arguments: str) -> str:
    ran = await headrace(*arguments, "--state-dir", str(mesh.folder), folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    return ran.out


async def new_key(mesh: RunningMesh) -> dict[str, Any]:
    options = ("key", "create", "--tenant", "acme", "--scope", "generate", "--json")
    found: dict[str, Any] = json.loads(await command(mesh, *options))
    return found


async def use(mesh: RunningMesh, key: str, *, times: int) -> Counter[str]:
    """Call the mesh in several ways; return what its answers say that was used."""
    counted: Counter[str] = Counter()
    async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key=key) as api:

        async def call(n: int) -> None:
            messages: Any = [{"role": "user", "content": PROMPTS[n % len(PROMPTS)]}]
            options: dict[str, Any] = {"model": mesh.model, "max_tokens": 5 + n}
            if n % 2:
                stream = await api.chat.completions.create(
                    messages=messages,
                    stream=True,
                    stream_options={"include_usage": True},
                    **options,
                )
                usage = [chunk.usage async for chunk in stream][-1]
            else:
                answer = await api.chat.completions.create(
                    messages=messages, n=1 + n % 3, **options
                )
                usage = answer.usage
            assert usage is not None
            counted.update(requests=1, input=usage.prompt_tokens, output=usage.completion_tokens)

        await asyncio.gather(*map(call, range(times)))
    return counted


async def sums(mesh: RunningMesh, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        await command(mesh, "usage", "--tenant", "acme", *options, "--json")
    )
    return found


def totals(of: dict[str, Any]) -> tuple[int, int, int]:
    return of["requests"], of["input_tokens"], of["output_tokens"]


@pytest.mark.timeout(180)
async def test_clients_and_the_books_count_alike(mesh: RunningMesh) -> None:
    keys = [await new_key(mesh), await new_key(mesh)]
    await command(mesh, "price", "set", mesh.model, *PRICE, "--currency", "USD")
    first, second = await asyncio.gather(
        use(mesh, keys[0]["key"], times=14), use(mesh, keys[1]["key"], times=9)
    )

    async def is_stored() -> bool:
        return [each["requests"] for each in await sums(mesh)] == [23]

    await eventually(is_stored, within_s=30)
    expected = sorted(
        (key["id"], counted["requests"], counted["input"], counted["output"])
        for key, counted in zip(keys, (first, second), strict=True)
    )
    by_key = await sums(mesh, "--by", "key")
    assert [(each["key"], *totals(each)) for each in by_key] == expected
    await check_openai(mesh, expected)
    await check_cost(mesh, expected)
    rows = list(csv.DictReader(io.StringIO(await command(mesh, "usage", "rows", "--csv"))))
    mine = [row for row in rows if row["tenant"] == "acme"]
    assert len(mine) == 23
    assert sum(int(row["output_tokens"]) for row in mine) == first["output"] + second["output"]
    assert "there is no difference" in await command(mesh, "usage", "reconcile")


async def check_openai(mesh: RunningMesh, expected: list[tuple[str, int, int, int]]) -> None:
    admin = (mesh.folder / "admin.key").read_text().strip()
    async with openai.AsyncOpenAI(admin_api_key=admin, base_url=f"{mesh.url}/v1") as api:
        (day,) = await sums(mesh, "--by", "day")
        start_s = int(datetime.fromisoformat(day["day"]).timestamp())
        page = await api.admin.organization.usage.completions(
            start_time=start_s, project_ids=["acme"], group_by=["api_key_id"]
        )
    results: list[Any] = [result for bucket in page.data for result in bucket.results]
    found = [
        (each.api_key_id, each.num_model_requests, each.input_tokens, each.output_tokens)
        for each in results
    ]
    assert found == expected


async def check_cost(mesh: RunningMesh, expected: list[tuple[str, int, int, int]]) -> None:
    nanos = sum(INPUT_NANOS * of[2] + OUTPUT_NANOS * of[3] for of in expected)
    (total,) = await sums(mesh)
    assert round(float(total["cost"]) * 1e9) == nanos
    assert total["currency"] == "USD"
