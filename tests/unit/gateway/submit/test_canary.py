"""Canaries go to every model in turn, and a model that fails them takes no other model's turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from headrace.clock import SystemClock
from headrace.errors import HeadraceError, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard, VectorFacts
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1 import common_pb2
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Event,
    Failed,
    Generation,
    Tokens,
    ValidRequest,
)
from headrace_gateway.stream.last_token import LastTokenClock
from headrace_gateway.submit.canary import Canary
from helpers.eventually import eventually


class KnownGeneration(Generation):
    """A generation whose events are known beforehand."""

    def __init__(self, request_id: str, known: list[Event], ended: list[str]) -> None:
        super().__init__(RequestRecord(request_id=request_id))
        self.known, self.ended = known, ended

    async def events(self) -> AsyncIterator[list[Event]]:
        yield self.known

    def end_choice(self, choice: int, tokens: int) -> None:
        raise AssertionError("a canary has no stop strings")

    async def settle(self, outcome: common_pb2.RequestOutcome) -> None:
        self.ended.append(f"settled {self.record.request_id.split('-')[0]}")

    async def abandon(self) -> None:
        self.ended.append("abandoned")


@dataclass
class FakeAdmission:
    """Admits canaries: those of models named "good" get a token, the others fail."""

    requests: list[ValidRequest] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def open_canary(self, request: ValidRequest) -> Generation:
        self.requests.append(request)
        events: list[Event] = [Tokens(0, 0, [1]), ChoiceEnded(0, common_pb2.FINISH_REASON_LENGTH)]
        if request.card.model != "good":
            error: HeadraceError = NoWorker("none")
            events = [Failed(error)]
        return KnownGeneration(request.request_id, events, self.ended)

    @property
    def models(self) -> set[str]:
        return {request.card.model for request in self.requests}


async def test_every_model_gets_its_turn_and_each_canary_is_ended() -> None:
    admission, clock = FakeAdmission(), SystemClock()
    bad = ModelCard(model="bad", context_tokens=16)
    good_one = ModelCard(model="good", context_tokens=16, eos_token_ids=[9])
    cards = [bad, good_one]
    settings = GatewaySettings(canary_interval_s=0.02, canary_timeout_s=1.0)
    canary = Canary(admission, lambda: cards, LastTokenClock(clock), clock, settings)
    running = asyncio.create_task(canary.run())
    await eventually(lambda: len(admission.requests) >= 4)
    running.cancel()
    await asyncio.wait([running])
    assert admission.models == {"bad", "good"}
    assert {"settled canary", "abandoned"} <= set(admission.ended)
    good = next(request for request in admission.requests if request.card.model == "good")
    assert (good.prompt_ids, good.sampling.max_tokens) == ((9,), 1)
    assert good.sampling.temperature == 0.0


async def test_a_model_of_vectors_is_sent_one_input() -> None:
    @dataclass
    class Encoders(FakeAdmission):
        async def open_canary(self, request: ValidRequest) -> Generation:
            self.requests.append(request)
            assert (request.prompt_ids, len(request.inputs), request.n) == ((), 1, 1)
            ended = ChoiceEnded(0, common_pb2.FINISH_REASON_STOP, b"1234")
            return KnownGeneration(request.request_id, [ended], self.ended)

    clock, admission = SystemClock(), Encoders()
    card = ModelCard(model="encoder", vectors=VectorFacts(dimensions=1))
    settings = GatewaySettings(canary_interval_s=0.05, canary_timeout_s=1)
    canary = Canary(admission, lambda: [card], LastTokenClock(clock), clock, settings)
    running = asyncio.create_task(canary.run())
    try:
        await eventually(lambda: "settled canary" in admission.ended)
    finally:
        running.cancel()
