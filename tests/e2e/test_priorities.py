"""Urgent requests preempt bulk ones without loss; lanes are bounded; tenants are separate."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import grpc
import httpx
import openai
import pytest

from headrace.client import AsyncClient, make_request
from headrace.v1.common_pb2 import Priority
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from helpers.batch_rows import billed, create, ended, lines, row, texts
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.streams import Seen, chat

SLOTS = 4


def opened(mesh: FreshMesh) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0)


async def generate(
    client: openai.AsyncOpenAI, model: str, number: int, tier: str, tokens: int
) -> Seen:
    return await chat(
        client,
        model,
        f"Tell me about number {number}.",
        seed=number,
        temperature=1.0,
        max_tokens=tokens,
        service_tier=tier,
        extra_body={"ignore_eos": True},
    )


async def running(mesh: FreshMesh) -> int:
    async with AsyncClient(mesh.url) as client:
        return sum(worker.running for worker in await client.workers())


async def preempted(mesh: FreshMesh) -> float:
    """How often a bulk request was preempted."""
    port = mesh.processes["scheduler-0"].ports["metrics"]
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    name = "headrace_scheduler_preempted_requests_total"
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))


@pytest.mark.timeout(180)
async def test_interactive_requests_preempt_bulk_ones_without_changing_their_output(
    tmp_path: Path,
) -> None:
    length = 300
    options = ("--scripted-step-ms", "20", "--set", f"worker.max_slots={SLOTS}")
    async with fresh_mesh(tmp_path, *options) as mesh, opened(mesh) as client:
        numbers = range(SLOTS)
        expected = await asyncio.gather(
            *(generate(client, "scripted", n, "flex", length) for n in numbers)
        )
        bulk = [
            asyncio.create_task(generate(client, "scripted", n, "flex", length)) for n in numbers
        ]
        await eventually(lambda: _is(running(mesh), SLOTS), within_s=20)
        urgent = await asyncio.gather(
            *(generate(client, "scripted", 100 + n, "priority", 5) for n in range(2))
        )
        assert not any(task.done() for task in bulk), (
            "no request waited for the end of a bulk request"
        )
        seen = await asyncio.gather(*bulk)
        preemptions = await preempted(mesh)
    assert [one.completion_tokens for one in urgent] == [5, 5]
    assert [one.text for one in seen] == [one.text for one in expected]
    assert all(one.completion_tokens == length for one in seen)
    assert all(one.finish_reasons == ["length"] for one in seen)
    assert preemptions >= 1


@pytest.mark.timeout(180)
async def test_preempted_text_of_a_real_model_equals_that_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    length = 150
    options = ("--engine", "transformers", "--threads", "1")
    slots = ("--set", f"worker.max_slots={SLOTS}")
    async with fresh_mesh(tmp_path, *options, *slots) as mesh, opened(mesh) as client:
        numbers = range(3 * SLOTS)
        expected = await asyncio.gather(
            *(generate(client, "valley", n, "flex", length) for n in numbers)
        )
        bulk = [asyncio.create_task(generate(client, "valley", n, "flex", length)) for n in numbers]
        await eventually(lambda: _is(running(mesh), SLOTS), within_s=20)
        for n in range(3):
            await generate(client, "valley", 100 + n, "priority", 10)
        seen = await asyncio.gather(*bulk)
        preemptions = await preempted(mesh)
    assert [one.text for one in seen] == [one.text for one in expected]
    assert all(one.completion_tokens == length for one in seen)
    assert preemptions >= 1


@pytest.mark.timeout(300)
async def test_chats_of_ordinary_priority_start_while_long_rows_hold_every_slot(
    tmp_path: Path,
) -> None:
    slots, chats, tokens = 64, 5, 400
    options = ("--scripted-step-ms", "10", "--set", f"worker.max_slots={slots}")
    rows = [row(number) for number in range(slots)]
    for each in rows:
        each["body"] |= {"max_tokens": tokens}
    async with (
        fresh_mesh(tmp_path, *options) as mesh,
        openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client,
        AsyncClient(mesh.url) as operator,
    ):

        async def bulk() -> tuple[int, int]:
            lanes = await operator.lanes()
            (lane,) = (each for each in lanes if each.priority == Priority.PRIORITY_BULK)
            return lane.running, lane.waiting

        async def rows_hold_every_slot() -> bool:
            return await bulk() == (slots, 0)

        undisturbed = await ended(client, await create(client, rows))
        batch = await create(client, rows)
        await eventually(rows_hold_every_slot, within_s=30)
        requests = (
            chat(client, "scripted", "Hi", seed=number, max_tokens=3) for number in range(chats)
        )
        seen = await asyncio.gather(*requests)
        assert [each.completion_tokens for each in seen] == [3] * chats
        batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 0, "a chat waited for the end of a row"
        await eventually(rows_hold_every_slot, within_s=30)
        batch = await ended(client, batch)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == slots
        output = texts(await lines(client, batch.output_file_id))
        assert output == texts(await lines(client, undisturbed.output_file_id))

        async def each_token_is_billed_once() -> bool:
            return await billed(client) == 2 * slots * tokens

        await eventually(each_token_is_billed_once, within_s=30)


@pytest.mark.timeout(180)
async def test_a_burst_through_two_gateways_fills_the_lane_exactly(
    tmp_path: Path,
) -> None:
    lane = ("--set", "scheduler.max_waiting=20", "--set", "worker.max_slots=1")
    options = ("--gateways", "2", "--scripted-step-ms", "20")
    async with fresh_mesh(tmp_path, *options, *lane) as mesh, opened(mesh) as client:
        holder = asyncio.create_task(generate(client, "scripted", 0, "default", 4_000))
        await eventually(lambda: _is(running(mesh), 1), within_s=20)
        ends: Counter[str] = Counter()

        async def one(number: int) -> None:
            try:
                await generate(client, "scripted", number, "default", 2)
            except openai.RateLimitError as refusal:
                ends["refused" if "retry-after" in refusal.response.headers else "?"] += 1
            else:
                ends["served"] += 1

        burst = [asyncio.create_task(one(number)) for number in range(1, 201)]
        await eventually(lambda: ends["refused"] >= 180, within_s=60)
        assert ends == {"refused": 180}
        holder.cancel()
        await asyncio.gather(*burst)
    assert ends == {"refused": 180, "served": 20}


@pytest.mark.timeout(120)
async def test_a_trusted_header_names_the_tenant_over_http_and_grpc(
    tmp_path: Path,
) -> None:
    body = {"model": "scripted", "prompt": "Hello", "max_tokens": 3}
    async with fresh_mesh(tmp_path, "--set", "gateway.tenant_header=x-tenant") as mesh:
        line = ("tenant", "create", "nightly", "--highest-priority", "bulk")
        created = await headrace(*line, folder=tmp_path)
        assert created.status == 0, created.err
        async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as client:

            async def status(name: str, path: str, **fields: object) -> tuple[int, str]:
                answer = await client.post(path, json=body | fields, headers={"x-tenant": name})
                return answer.status_code, answer.text

            assert (await status("team-1", "/v1/completions"))[0] == 200
            code, text = await status("no name", "/v1/completions")
            assert code == 400
            assert "x-tenant" in text
            code, text = await status("nightly", "/v1/completions", service_tier="priority")
            assert code == 400
            assert "tenant nightly may request bulk at most" in text
        address = mesh.url.removeprefix("http://")
        async with grpc.aio.insecure_channel(address) as channel:
            generation = GenerationServiceStub(channel)
            request = make_request("Hello", model="scripted", max_tokens=3)
            await generation.Generate(request, metadata=(("x-tenant", "team-1"),))
            request.priority = Priority.PRIORITY_STANDARD
            with pytest.raises(grpc.aio.AioRpcError, match="tenant nightly may request bulk"):
                await generation.Generate(request, metadata=(("x-tenant", "nightly"),))


async def _is(found: Awaitable[int], requested: int) -> bool:
    return await found == requested
