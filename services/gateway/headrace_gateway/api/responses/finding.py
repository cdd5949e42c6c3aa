"""Finds a response: its description, its result, or where its request is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headrace.bus import BusError
from headrace.errors import (
    HeadraceError,
    InternalError,
    ModelNotFound,
    NoWorker,
    RequestNotFound,
    ResourceNotFound,
)
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.request_keys import request_key
from headrace.rpc.status import from_status
from headrace.v1 import requests_pb2
from headrace.v1.common_pb2 import Choice, Usage
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.responses.wire.events import ResponseEvents
from headrace_gateway.api.responses.wire.resource import (
    IN_PROGRESS,
    QUEUED,
    Description,
    Ending,
    response_json,
)
from headrace_gateway.base.quoting import quoted
from headrace_gateway.conversations.store import request_id_of
from headrace_gateway.output.answering import Answer, GenerationFailed, rebuild_answer
from headrace_gateway.output.assembler import UNFINISHED, ChoiceDelta
from headrace_gateway.parsers.pieces import CallPiece
from headrace_gateway.resume.location import Location
from headrace_gateway.stream.stored_output import StoredOutput

Json = dict[str, Any]

_SUBMITTED_WITHIN_S = 30
"""A description is stored before its request is submitted."""


@dataclass(frozen=True, slots=True)
class FoundResponse:
    services: ApiServices
    tenant: str
    description: Description

    @property
    def key(self) -> str:
        return request_key(self.tenant, self.description.request_id)

    async def response(self) -> Json:
        """Return the response as it is now.

        Raises:
            HeadraceError: that cannot be found out now.
        """
        description = self.description
        result = await self.services.conversations.result(self.tenant, description.request_id)
        if result is not None:
            return await self.ended(result)
        try:
            return await self.located(await self.services.requests.locate(self.key))
        except RequestNotFound:
            if self.services.conversations.unix_s - description.created_at < _SUBMITTED_WITHIN_S:
                return response_json(description, QUEUED, [])
            error = InternalError("the response was lost: it is not running and has no result")
            return ResponseEvents(description).response(Ending(Usage(), error=error))

    async def located(self, location: Location) -> Json:
        """Return the response of which the request is there."""
        if location.result is not None:
            # Why: it was ended by a leader, or its result was not stored here in time.
            with suppress(BusError):
                await self.services.conversations.store_result(location.result)
            return await self.ended(location.result)
        is_waiting = location.status().state == requests_pb2.REQUEST_STATE_WAITING
        return response_json(self.description, QUEUED if is_waiting else IN_PROGRESS, [])

    async def ended(self, result: ResultRecord) -> Json:
        """Return the response that has this result."""
        ending = ending_of(result)
        choice = result.outcome.choices[0] if result.outcome.choices else Choice()
        # Why: a result has neither the spelling of tokens nor the order of text and calls.
        needs_tokens = self.description.logprobs or (choice.text and choice.tool_calls)
        if needs_tokens:
            with suppress(NoWorker):
                if (answer := self.rebuilt(result)) is not None:
                    return await self._read_again(answer.one_token_each(), ending)
        events = ResponseEvents(self.description)
        for _ in events.take(_whole(choice)):
            pass
        return events.response(ending)

    def rebuilt(self, result: ResultRecord) -> Answer | None:
        """Return the answer that has this result, token by token.

        None: its text is all that there is, for a model of other weights has the name now.

        Raises:
            NoWorker: the model's tokenizer is not loaded here yet.
        """
        catalog, record = self.services.catalog, result.request
        with suppress(ModelNotFound, RequestNotFound):
            if catalog.of_record(record.model).card.weights_digest == record.weights_digest:
                return rebuild_answer(catalog, StoredOutput(result))
        return None

    def text_events(self, result: ResultRecord) -> list[Json]:
        """Return the events of a response with this result, made of its text alone."""
        choices = result.outcome.choices
        events = ResponseEvents(self.description)
        taken = events.take(_whole(choices[0] if choices else Choice()))
        return [*events.opening(), *taken, *events.ending(ending_of(result))]

    async def _read_again(self, answer: Answer, ending: Ending) -> Json:
        spelling = answer.tokenizer.spelling if self.description.logprobs else None
        events = ResponseEvents(self.description, spelling)
        with suppress(GenerationFailed):
            async for deltas in answer:
                for delta in deltas:
                    for _ in events.take(delta):
                        pass
                if answer.complete:
                    break
        return events.response(ending)


async def find_response(services: ApiServices, tenant: str, response_id: str) -> FoundResponse:
    """Find a stored response of a tenant.

    Raises:
        ResourceNotFound: there is none, or none any more.
        BrokerUnavailable: that is not known now.
    """
    stored = await services.conversations.description(tenant, request_id_of(response_id))
    if stored is None:
        raise ResourceNotFound(f"response {quoted(response_id)} not found", field="response_id")
    return FoundResponse(services, tenant, Description.of(stored))


def ending_of(result: ResultRecord) -> Ending:
    outcome = result.outcome
    error: HeadraceError | None = None
    if outcome.HasField("error"):
        error = from_status(outcome.error)
    reason = outcome.choices[0].finish_reason if outcome.choices else UNFINISHED
    return Ending(outcome.usage, reason, error, result.end_time.ToNanoseconds() / 1e9)


def _whole(choice: Choice) -> ChoiceDelta:
    calls = [
        CallPiece(index, call.name, call.arguments, call.call_id)
        for index, call in enumerate(choice.tool_calls)
    ]
    return ChoiceDelta(
        0,
        0,
        reasoning=choice.reasoning,
        text=choice.text,
        finish_reason=choice.finish_reason,
        calls=calls,
    )
