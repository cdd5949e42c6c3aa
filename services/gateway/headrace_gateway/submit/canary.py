"""A one-token request through the whole real path, when no caller's has come through lately."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from headrace.clock import Clock
from headrace.errors import DeadlineExceeded, HeadraceError
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1 import common_pb2
from headrace_gateway.base import metrics
from headrace_gateway.checks.inputs import requests_for
from headrace_gateway.checks.limits import Limits
from headrace_gateway.checks.validation import valid_request
from headrace_gateway.request.generation import (
    ChoiceEnded,
    Failed,
    Generation,
    Input,
    Tokens,
    ValidRequest,
)
from headrace_gateway.request.generation_request import GenerationRequest, TokenIds, VectorRequest
from headrace_gateway.stream.last_token import LastTokenClock

log = logging.getLogger(__name__)


class CanaryAdmission(Protocol):
    async def open_canary(self, request: ValidRequest) -> Generation: ...


@dataclass(frozen=True, slots=True)
class CanaryPace:
    every_s: float
    """Between canaries, and how long no token must have come for one to fly."""
    timeout_s: float


class Canary:
    """Flies to one model after the other; quick to repeat while no token has come yet."""

    def __init__(
        self,
        admission: CanaryAdmission,
        cards: Callable[[], Iterable[ModelCard]],
        last_token: LastTokenClock,
        clock: Clock,
        pace: CanaryPace,
    ) -> None:
        self._admission = admission
        self._cards = cards
        self._last_token = last_token
        self._clock = clock
        self._pace = pace

    async def run(self) -> None:
        """Until cancelled."""
        for turn in itertools.count():
            cards = list(self._cards())
            if cards and not self._last_token.within(self._pace.every_s):
                await self._fly(cards[turn % len(cards)])
            has_sung = self._last_token.within(2 * self._pace.every_s)
            await asyncio.sleep(self._pace.every_s if has_sung else self._pace.every_s / 20)

    async def _fly(self, card: ModelCard) -> None:
        started_s = self._clock.monotonic_s()
        try:
            await self._until_token(_request(card, self._pace.timeout_s))
        except HeadraceError as error:
            metrics.canary_failures_total.labels(card.model, error.reason).inc()
            log.warning("canary.failed", extra={"model": card.model, "error": str(error)})
        else:
            metrics.canary_seconds.labels(card.model).observe(self._clock.monotonic_s() - started_s)

    async def _until_token(self, request: ValidRequest) -> None:
        generation = await self._admission.open_canary(request)
        try:
            async with asyncio.timeout(self._pace.timeout_s):
                await _sung(generation)
        except TimeoutError:
            raise DeadlineExceeded(f"no token within {self._pace.timeout_s:g} s") from None
        finally:
            await generation.abandon()


async def _sung(generation: Generation) -> None:
    got_token = False
    async for events in generation.events():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            has_vector = isinstance(event, ChoiceEnded) and bool(event.vector)
            got_token = got_token or isinstance(event, Tokens) or has_vector
    if got_token:
        usage = common_pb2.Usage(prompt_tokens=1, output_tokens=1)
        await generation.settle(common_pb2.RequestOutcome(usage=usage))


def _request(card: ModelCard, timeout_s: float) -> ValidRequest:
    # Any token will do; the model's own end of text is one that every vocabulary has.
    prompt = card.eos_token_ids[0] if card.eos_token_ids else 0
    limits = Limits(max_timeout_s=timeout_s, max_patience_s=timeout_s)
    request_id = f"canary-{uuid4().hex}"
    priority = common_pb2.PRIORITY_INTERACTIVE
    if card.HasField("vectors"):
        inputs = VectorRequest(request_id, card.model, (TokenIds([prompt]),), priority)
        (request,) = requests_for(inputs, card, limits, [Input((prompt,))])
        return request
    parameters = common_pb2.SamplingParameters(max_tokens=1, temperature=0.0, ignore_eos=True)
    wanted = GenerationRequest(request_id, card.model, TokenIds([prompt]), parameters, priority)
    return valid_request(wanted, card, limits, [prompt], draw_seed=lambda: 0)
