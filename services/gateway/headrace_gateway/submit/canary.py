"""Canaries: requests of one token that take the whole path of a caller's request.

They are sent on behalf of the mesh's own tenant, while no caller's token has come for
`canary_interval_s`, so that a mesh that is stuck is seen by its metrics before a caller sees it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Protocol
from uuid import uuid4

from headrace.auth.caller import Caller
from headrace.auth.scopes import MESH_TENANT
from headrace.clock import Clock
from headrace.errors import DeadlineExceeded, HeadraceError
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1 import common_pb2
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.inputs import requests_for
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

_CALLER = Caller(MESH_TENANT)


class CanaryAdmission(Protocol):
    async def open_canary(self, request: ValidRequest) -> Generation: ...


class Canary:
    """Sends a canary to one model after the other while no token has come for a while."""

    def __init__(
        self,
        admission: CanaryAdmission,
        cards: Callable[[], Iterable[ModelCard]],
        last_token: LastTokenClock,
        clock: Clock,
        settings: GatewaySettings,
    ) -> None:
        self._admission, self._cards = admission, cards
        self._last_token, self._clock = last_token, clock
        timeout_s = settings.canary_timeout_s
        self._interval_s, self._timeout_s = settings.canary_interval_s, timeout_s
        times = {"max_timeout_s": timeout_s, "max_patience_s": timeout_s}
        self._settings = settings.model_copy(update=times)

    async def run(self) -> None:
        """Send canaries until cancelled; more often until a first token has come."""
        for turn in itertools.count():
            cards = list(self._cards())
            if cards and not self._last_token.within(self._interval_s):
                await self._measure(cards[turn % len(cards)])
            is_healthy = self._last_token.within(2 * self._interval_s)
            await asyncio.sleep(self._interval_s if is_healthy else self._interval_s / 20)

    async def _measure(self, card: ModelCard) -> None:
        started_s = self._clock.monotonic_s()
        try:
            await self._run_one(_request(card, self._settings))
        except HeadraceError as error:
            metrics.canary_failures_total.labels(card.model, error.reason).inc()
            log.warning("canary.failed", extra={"model": card.model, "error": str(error)})
        else:
            metrics.canary_seconds.labels(card.model).observe(self._clock.monotonic_s() - started_s)

    async def _run_one(self, request: ValidRequest) -> None:
        generation = await self._admission.open_canary(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                await _read(generation)
        except TimeoutError:
            raise DeadlineExceeded(f"no token within {self._timeout_s:g} s") from None
        finally:
            await generation.abandon()


async def _read(generation: Generation) -> None:
    """Read the canary to its end, and settle it if it had a token or a vector."""
    has_output = False
    async for events in generation.events():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            has_vector = isinstance(event, ChoiceEnded) and bool(event.vector)
            has_output = has_output or isinstance(event, Tokens) or has_vector
    if has_output:
        usage = common_pb2.Usage(prompt_tokens=1, output_tokens=1)
        await generation.settle(common_pb2.RequestOutcome(usage=usage))


def _request(card: ModelCard, settings: GatewaySettings) -> ValidRequest:
    # Any token will do; every vocabulary has the model's own end of text.
    prompt = card.eos_token_ids[0] if card.eos_token_ids else 0
    request_id, priority = f"canary-{uuid4().hex}", common_pb2.PRIORITY_INTERACTIVE
    if card.HasField("vectors"):
        vectors = VectorRequest(
            request_id, card.model, (TokenIds([prompt]),), priority=priority, caller=_CALLER
        )
        (valid,) = requests_for(vectors, card, settings, [Input((prompt,))])
        return valid
    parameters = common_pb2.SamplingParameters(max_tokens=1, temperature=0.0, ignore_eos=True)
    request = GenerationRequest(
        request_id, card.model, TokenIds([prompt]), parameters, priority=priority, caller=_CALLER
    )
    return valid_request(request, card, settings, [prompt], draw_seed=lambda: 0)
