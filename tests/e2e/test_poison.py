"""A request that the engine cannot survive, beside seven that are well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from headrace.errors import AttemptsExhausted
from headrace.rpc.status import from_status
from headrace.v1 import common_pb2, generation_pb2, generation_pb2_grpc
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import fresh_mesh

HEALTHY = 7
TOKENS = 150
UNDER_WAY = 20
"""Tokens: headway, so that no loss before the poison counts against the healthy."""
FAILS, CRASHES = 299, 298
ATTEMPTS = 3
MESH = (
    *("--workers", "2", "--scripted-step-ms", "15"),
    *("--set", f"worker.scripted_fail_token={FAILS}"),
    *("--set", f"worker.scripted_crash_token={CRASHES}"),
)


def request(request_id: str, prompt_ids: list[int]) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        model="scripted",
        prompt_token_ids=prompt_ids,
        seed=3,
        request_id=request_id,
        parameters=common_pb2.SamplingParameters(
            max_tokens=TOKENS, temperature=1.0, ignore_eos=True
        ),
    )


class Streams:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)

    async def one(
        self, request: generation_pb2.GenerateRequest, saw: Callable[[int], None] = lambda _: None
    ) -> tuple[list[int], generation_pb2.Finish]:
        """Its tokens, each once and in order, and its finish."""
        ids: list[int] = []
        finish = generation_pb2.Finish()
        async for event in self._stub.StreamGenerate(request):
            assert not event.delta.token_ids or event.delta.first_index == len(ids)
            ids += event.delta.token_ids
            saw(len(ids))
            finish = event.finish
        return ids, finish

    async def healthy(self, prefix: str, under_way: asyncio.Event) -> list[list[int]]:
        """All seven; the event is set once each is well under way."""
        begun: set[int] = set()

        def saw(number: int, tokens: int) -> None:
            if tokens >= UNDER_WAY:
                begun.add(number)
            if len(begun) == HEALTHY:
                under_way.set()

        found = await asyncio.gather(
            *(
                self.one(request(f"{prefix}-{n}", [5, 6, n]), partial(saw, n))
                for n in range(HEALTHY)
            )
        )
        for ids, finish in found:
            assert not finish.HasField("error"), finish
            assert finish.usage.output_tokens == len(ids) == TOKENS
        return [ids for ids, _ in found]


@pytest.mark.timeout(240)
async def test_what_fails_or_kills_its_worker_ends_alone_and_is_kept_with_its_reason(
    tmp_path: Path,
) -> None:
    async with fresh_mesh(tmp_path, *MESH) as mesh:
        target = mesh.url.removeprefix("http://")
        async with grpc.aio.insecure_channel(target) as channel:
            streams = Streams(channel)
            expected = await streams.healthy("alone", asyncio.Event())
            for name, token in (("fails", FAILS), ("crashes", CRASHES)):
                under_way = asyncio.Event()
                healthy = asyncio.create_task(streams.healthy(name, under_way))
                await under_way.wait()
                ids, finish = await streams.one(request(name, [5, token]))
                assert ids == []
                error = from_status(finish.error)
                assert isinstance(error, AttemptsExhausted)
                assert error.message.startswith(f"failed on {ATTEMPTS} attempts; the last: ")
                assert await healthy == expected
        ran = await headrace("dead-letters", "--json", folder=tmp_path)
        shown = await headrace("dead-letters", folder=tmp_path)

        def restarts() -> int:
            return sum(process.restarts for process in mesh.processes.values())

        await eventually(lambda: restarts() >= ATTEMPTS, within_s=30)
        ended = restarts()
    latest, first = json.loads(ran.out)
    assert (first["request_id"], first["model"], first["attempts"]) == (
        "fails",
        "scripted",
        ATTEMPTS,
    )
    assert f"the prompt has token {FAILS}" in first["reason"]
    assert (latest["request_id"], latest["attempts"]) == ("crashes", ATTEMPTS)
    assert "worker" in latest["reason"]
    assert latest["time"] >= first["time"]
    assert "crashes" in shown.out
    assert ended == ATTEMPTS, "a worker for each attempt of what crashes, none for what fails"
