"""Clients that cancel their streams: in the lane, during prefill, or during decode."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from enum import StrEnum

import grpc

from headrace.v1 import (
    common_pb2,
    generation_pb2,
    generation_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)

_LONG_PROMPT = "river " * 3000
"""Prefilled in many steps, in which no token comes."""
_MOST_TOKENS = 6
_ENDS_WITHIN_S = 60.0


class Phase(StrEnum):
    """Where a request was when its client cancelled it, as far as the client could see."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"


class LeavingClients:
    """On a channel to a gateway's own port. Half of them close the stream, half cancel by id."""

    def __init__(self, channel: grpc.aio.Channel, model: str) -> None:
        self._generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self._requests = requests_pb2_grpc.RequestServiceStub(channel)
        self._model = model
        self.left: Counter[str] = Counter()
        """Cancelled streams by phase and way."""

    async def run(self, streams: int, *, at_once: int, seed: int) -> None:
        numbers = iter(range(streams))

        async def client() -> None:
            for number in numbers:
                await self._one(random.Random(f"{seed} {number}"), f"{seed}-{number}")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())

    async def _one(self, rng: random.Random, request_id: str) -> None:
        phase = rng.choice((Phase.WAITING, Phase.PREFILL, Phase.DECODE, Phase.DECODE))
        call = self._generation.StreamGenerate(
            generation_pb2.GenerateRequest(
                model=self._model,
                prompt=_LONG_PROMPT if phase is Phase.PREFILL else f"number {request_id}",
                request_id=request_id,
                parameters=common_pb2.SamplingParameters(max_tokens=1000, ignore_eos=True),
            )
        )
        events = aiter(call)
        await anext(events)  # it is in its lane
        if phase is Phase.PREFILL:
            await self._until_running(request_id)
        elif phase is Phase.DECODE:
            for _ in range(rng.randint(1, _MOST_TOKENS)):
                await anext(events)
        if by_id := rng.random() < 0.5:
            await self._requests.CancelRequest(
                requests_pb2.CancelRequestRequest(request_id=request_id)
            )
            async with asyncio.timeout(_ENDS_WITHIN_S):
                async for event in events:
                    last = event
            assert last.finish.HasField("error"), last
        else:
            call.cancel()
        self.left[f"{phase}, {'by id' if by_id else 'closed'}"] += 1

    async def _until_running(self, request_id: str) -> None:
        question = requests_pb2.GetRequestRequest(request_id=request_id)
        while True:
            found = await self._requests.GetRequest(question)
            if found.state == requests_pb2.REQUEST_STATE_RUNNING:
                return
            await asyncio.sleep(0.02)
