"""Background responses in a mesh of which every process is killed while they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

RESPONSES, TOKENS = 50, 160
PROCESSES = (
    *("gateway-0", "worker-scripted-0", "gateway-1", "scheduler-0"),
    *("worker-scripted-1", "scheduler-1", "envoy", "nats", "control-0"),
)
ENDS = ("response.completed", "response.incomplete", "response.failed")


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    counts = ("--workers", "2", "--gateways", "2", "--schedulers", "2")
    async with fresh_mesh(tmp_path, *counts, "--scripted-step-ms", "20") as running:
        yield running


@pytest.fixture
async def client(mesh: FreshMesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key="none", max_retries=20
    ) as client:
        yield client


def body(number: int) -> dict[str, Any]:
    return {
        "model": "scripted",
        "input": f"Number {number}",
        "temperature": 1.0,
        "max_output_tokens": TOKENS,
        "extra_body": {"seed": number, "ignore_eos": True},
    }


def made(response: Response) -> tuple[str | None, str, int]:
    assert response.usage is not None
    return response.status, response.output_text, response.usage.output_tokens


async def ends(client: openai.AsyncOpenAI, begun: Iterable[Response]) -> list[Response]:
    """Return the responses once all have ended."""
    found: dict[str, Response] = {}

    async def all_have() -> bool:
        for response in begun:
            if response.id not in found:
                now = await client.responses.retrieve(response.id)
                if now.status in ("queued", "in_progress"):
                    return False
                found[response.id] = now
        return True

    await eventually(all_have, within_s=180)
    return [found[response.id] for response in begun]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_process_is_killed_and_each_response_is_that_of_an_undisturbed_run(
    mesh: FreshMesh, client: openai.AsyncOpenAI
) -> None:
    numbers = range(RESPONSES)
    undisturbed = [
        made(response)
        for response in await asyncio.gather(
            *(client.responses.create(**body(number)) for number in numbers)
        )
    ]
    assert {each[0] for each in undisturbed} == {"incomplete"}
    assert {each[2] for each in undisturbed} == {TOKENS}
    begun = [await client.responses.create(**body(number), background=True) for number in numbers]
    assert set(PROCESSES) <= set(mesh.processes)
    for name in PROCESSES:
        await mesh.kill(name)
    assert [made(response) for response in await ends(client, begun)] == undisturbed
    # Results that no gateway has in memory any more.
    for name in ("gateway-0", "gateway-1"):
        await mesh.kill(name)
    assert [made(response) for response in await ends(client, begun)] == undisturbed


async def read(
    client: openai.AsyncOpenAI, response_id: str, seen: list[ResponseStreamEvent]
) -> None:
    """Add the events of a response that are not seen yet, until the stream ends or breaks."""
    stream = await client.responses.retrieve(
        response_id, stream=True, starting_after=len(seen) - 1 if seen else openai.omit
    )
    async for event in stream:
        if event.type == "error":
            return
        seen.append(event)


@pytest.mark.timeout(300)
async def test_a_stream_goes_on_behind_its_last_event_after_the_death_of_its_gateway(
    mesh: FreshMesh, client: openai.AsyncOpenAI
) -> None:
    begun = await client.responses.create(
        **body(1) | {"max_output_tokens": 4 * TOKENS}, background=True
    )
    seen: list[ResponseStreamEvent] = []
    reading = asyncio.create_task(read(client, begun.id, seen))
    await eventually(lambda: len(seen) > 10, within_s=60)
    for gateway in ("gateway-0", "gateway-1"):
        mesh.strike(gateway)
    with suppress(openai.APIError):
        await reading
    assert seen[-1].type not in ENDS, "no stream was cut"
    async with asyncio.timeout(180):
        while seen[-1].type not in ENDS:
            with suppress(openai.APIError):
                await read(client, begun.id, seen)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    whole: list[ResponseStreamEvent] = []
    await read(client, begun.id, whole)
    # Of the time it ended, a stream knows what its gateway's clock says.
    assert [event.model_dump(exclude={"response"}) for event in seen] == [
        event.model_dump(exclude={"response"}) for event in whole
    ]
