"""A canary flies to every model in turn, and a model that fails it keeps no other from its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from headrace.clock import SystemClock
from headrace.errors import HeadraceError, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.v1 import common_pb2
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Tokens,
    ValidRequest,
)
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.submit.canary import Canary, CanaryPace
from helpers.eventually import eventually


@dataclass
class Song:
    """A generation whose events are known beforehand."""

    request_id: str
    known: list[Event]
    ended: list[str]

    async def events(self) -> AsyncIterator[list[Event]]:
        yield self.known

    def end_choice(self, choice: int) -> None:
        raise AssertionError("a canary has no stop strings")

    async def settle(self, outcome: common_pb2.RequestOutcome) -> None:
        self.ended.append(f"settled {self.request_id.split('-')[0]}")

    async def abandon(self) -> None:
        self.ended.append("left")

    @property
    def arrival_s(self) -> float:
        return 0.0


@dataclass
class Aviary:
    """Lets canaries in: those of "good" models sing, the others fail."""

    requests: list[ValidRequest] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def open_canary(self, request: ValidRequest) -> Generation:
        self.requests.append(request)
        events: list[Event] = [Tokens(0, 0, [1]), ChoiceEnded(0, common_pb2.FINISH_REASON_LENGTH)]
        if request.card.model != "good":
            error: HeadraceError = NoWorker("none")
            events = [Failed(error)]
        return Song(request.request_id, events, self.ended)

    @property
    def models(self) -> set[str]:
        return {request.card.model for request in self.requests}


async def test_every_model_gets_its_turn_and_each_canary_is_let_go() -> None:
    aviary, clock = Aviary(), SystemClock()
    bad = ModelCard(model="bad", context_tokens=16)
    good_one = ModelCard(model="good", context_tokens=16, eos_token_ids=[9])
    cards = [bad, good_one]
    pace = CanaryPace(every_s=0.02, timeout_s=1.0)
    canary = Canary(aviary, lambda: cards, LastTokenClock(clock), clock, pace)
    flying = asyncio.create_task(canary.run())
    await eventually(lambda: len(aviary.requests) >= 4)
    flying.cancel()
    await asyncio.wait([flying])
    assert aviary.models == {"bad", "good"}
    assert {"settled canary", "left"} <= set(aviary.ended)
    good = next(request for request in aviary.requests if request.card.model == "good")
    assert (good.prompt_ids, good.sampling.max_tokens) == ((9,), 1)
    assert good.sampling.temperature == 0.0


async def test_a_model_that_makes_vectors_is_asked_for_one() -> None:
    @dataclass
    class Encoders(Aviary):
        async def open_canary(self, request: ValidRequest) -> Generation:
            self.requests.append(request)
            assert (request.prompt_ids, len(request.inputs), request.n) == ((), 1, 1)
            ended = ChoiceEnded(0, common_pb2.FINISH_REASON_STOP, b"1234")
            return Song(request.request_id, [ended], self.ended)

    clock, aviary = SystemClock(), Encoders()
    card = ModelCard(model="encoder", vectors=VectorFacts(dimensions=1))
    canary = Canary(
        aviary, lambda: [card], LastTokenClock(clock), clock, CanaryPace(every_s=0.05, timeout_s=1)
    )
    flying = asyncio.create_task(canary.run())
    try:
        await eventually(lambda: "settled canary" in aviary.ended)
    finally:
        flying.cancel()
