"""Live requests, listed and cancelled by the leaders of their models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.admin.v1.operations_pb2 import LiveRequest
from headrace.bus import Bus, BusError, NoReply, subjects
from headrace.errors import GatewayUnreachable, ModelNotFound, RequestNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.operations_pb2 import (
    ListLiveRequestsRequest,
    ListLiveRequestsResponse,
    LiveRequestRow,
)
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.request_keys import candidate_models, public_id
from headrace_control.operations.live_requests import ended, located, merged

ANSWER_S = 2.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[LiveRequestRow]
    next_token: str
    """Empty: this is the last page."""
    unreachable: list[str] = field(default_factory=list)
    """Models whose leader did not answer."""


class Leaders:
    """The leaders of all models, over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def page(self, query: ListLiveRequestsRequest, *, model: str = "") -> Page:
        """Return a page of `query.limit` rows at most; of one model, by any of its names, or all.

        Raises:
            ModelNotFound: no model has this name.
            BusUnavailable: the broker is away.
        """
        models = await self._models(model)
        payload = query.SerializeToString()

        async def portion(model: str) -> ListLiveRequestsResponse | None:
            subject = subjects.live_requests(model)
            try:
                answer = await self._bus.request(subject, payload, timeout_s=ANSWER_S)
            except NoReply:
                return None
            return ListLiveRequestsResponse.FromString(answer)

        portions = await asyncio.gather(*map(portion, models))
        rows, next_token = merged((each for each in portions if each is not None), query.limit)
        silent = [model for model, each in zip(models, portions, strict=True) if each is None]
        return Page(rows, next_token, silent)

    async def cancel(self, key: str) -> LiveRequest:
        """End a request, wherever it waits or runs; return how it stood.

        Raises:
            RequestNotFound: it is not live, and has no stored result.
            GatewayUnreachable: some leader that may have it does not answer, or not yet.
            BusUnavailable: the broker is away.
        """
        models = candidate_models(public_id(key), await self._models())
        message = LocateRequest(request_id=key, verb=LocateRequest.VERB_CANCEL)
        payload = message.SerializeToString()

        async def answer(model: str) -> LocateResponse:
            try:
                reply = await self._bus.request(subjects.locate(model), payload, timeout_s=ANSWER_S)
            except BusError:
                return LocateResponse(pending=True)
            return LocateResponse.FromString(reply)

        answers = await asyncio.gather(*map(answer, models))
        for each in answers:
            if each.found and not each.pending:
                return located(each)
        # Why after the leaders: a result is stored before its leader forgets the request.
        if (stored := await self._bus.get_result(key)) is not None:
            return ended(ResultRecord.FromString(stored))
        silent = [m for m, each in zip(models, answers, strict=True) if each.pending]
        if silent:
            raise GatewayUnreachable(
                f"request {public_id(key)} may be live: the scheduler of {', '.join(silent)} does"
                f" not answer; retry in {RETRY_S:g} s",
                retry_after_s=RETRY_S,
            )
        raise RequestNotFound(
            f"request {public_id(key)} not found: it is not running and no stored result exists",
            field="name",
        )

    async def _models(self, name: str = "") -> list[str]:
        """Return the models that are configured: all, or the one of this name."""
        cards = [ModelCard.FromString(card) for card in await self._bus.all_cards()]
        if not name:
            return sorted(card.model for card in cards)
        # A name that is some card's own means that one, as for gateways.
        named = [c for c in cards if c.model == name] or [c for c in cards if name in c.aliases]
        if not named:
            raise ModelNotFound(f"model {name} is not configured", field="model")
        return [min(named, key=lambda card: card.create_time.ToNanoseconds()).model]
