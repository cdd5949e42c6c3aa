"""Locates a request that a client wants to read, and opens its output at this gateway.

Own table first, then stored results, then the leader of the request's model. For example, gateway h
is asked for `req_7`, which gateway g held:

    0.00 s  h holds no req_7, and no result is stored
    0.00 s  h -> leader: LocateRequest(req_7, TAKE_OVER, gateway h)
            leader -> h: the record, held by gateway g at 10.0.0.4:7000
    0.01 s  h connects to g; g does not answer in 1 s
    1.06 s  h -> leader: the same with unreachable_gateway_id g; the leader suspects g
            leader -> h: pending; h asks again after 0.1 s, 0.2 s, 0.2 s ...
    2.30 s  g is gone: leader -> h: the record, held by gateway h, with its output so far
            h opens the request (`takeovers`) and the client reads it from its offset

After `attach_wait_s` without such an answer the client gets GatewayUnreachable, and may retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from headrace.bus import Bus, BusError
from headrace.clock import Clock
from headrace.errors import BrokerUnavailable, GatewayUnreachable, HeadraceError, RequestNotFound
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import Choice
from headrace_gateway.base.request_keys import public_id
from headrace_gateway.output.assembler import UNFINISHED
from headrace_gateway.output.resumer import Attachable
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.queue.settlements import Settlements
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens
from headrace_gateway.request.logprob_columns import read_run
from headrace_gateway.resume.leaders import ask_leaders
from headrace_gateway.resume.remote import Remote, Unreachable
from headrace_gateway.resume.takeovers import Takeovers
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests

ANSWER_S = 1.0
FIRST_BACKOFF_S, LONGEST_PAUSE_S = 0.05, 0.2


@dataclass(frozen=True, slots=True)
class OpenHere:
    open_request: OpenRequest
    failed = False

    @property
    def record(self) -> RequestRecord:
        return self.open_request.admitted.record

    async def open(self) -> Generation:
        # Also if it has been closed meanwhile: its output stays as long as it has a reader.
        return self.open_request.reader()


class Ended(Generation):
    """The generation of a stored result, which need not be ended."""

    def __init__(self, result: ResultRecord) -> None:
        super().__init__(result.request_id, result.arrival.ToNanoseconds() / 1e9)
        self._result = result

    @property
    def record(self) -> RequestRecord:
        return self._result.request

    @property
    def failed(self) -> bool:
        return self._result.outcome.HasField("error")

    async def open(self) -> Generation:
        sampling, choices = self.record.sampling, self._result.outcome.choices
        wants = sampling.HasField("logprobs") or sampling.HasField("prompt_logprobs")
        if wants and any(choice.token_ids and not _has_logprobs(choice) for choice in choices):
            raise RequestNotFound(
                f"request {public_id(self.request_id)} has ended; its result was too large to be"
                " stored with"
                " log probabilities",
                field="request_id",
            )
        return self

    async def events(self) -> AsyncIterator[list[Event]]:
        outcome, events = self._result.outcome, list[Event]()
        usage = outcome.usage
        known = usage.HasField("cached_prompt_tokens")
        cached = usage.cached_prompt_tokens if known else None
        for choice in outcome.choices:
            logprobs = read_run(choice.logprobs) if choice.HasField("logprobs") else None
            of_prompt = (
                read_run(choice.prompt_logprobs) if choice.HasField("prompt_logprobs") else None
            )
            ids = list(choice.token_ids)
            if ids:
                events.append(Tokens(choice.index, 0, ids, logprobs, of_prompt, cached))
            if choice.finish_reason != UNFINISHED:
                events.append(ChoiceEnded(choice.index, choice.finish_reason))
        if outcome.HasField("error"):
            events.append(Failed(from_status(outcome.error)))
        yield events


def _has_logprobs(choice: Choice) -> bool:
    return choice.HasField("logprobs") or choice.HasField("prompt_logprobs")


class RequestDirectory:
    """What this gateway's doors come to requests by."""

    def __init__(
        self,
        gateway_id: str,
        bus: Bus,
        clock: Clock,
        requests: OpenRequests,
        settlements: Settlements,
        takeovers: Takeovers,
        *,
        wait_s: float,
    ) -> None:
        self._gateway_id = gateway_id
        self._bus, self._clock = bus, clock
        self._requests, self._settlements, self._takeovers = requests, settlements, takeovers
        self._wait_s = wait_s

    async def find(self, key: str, models: Iterable[str]) -> Attachable:
        """The request, which one of these models has.

        Raises:
            RequestNotFound: no leader knows it, and no result is kept.
            GatewayUnreachable: the gateway that has it cannot be reached, and is not gone.
            BrokerUnavailable: no leader could be asked.
        """
        search = _Search(key, list(models))
        ends_s, pause_s = self._clock.monotonic_s() + self._wait_s, FIRST_BACKOFF_S
        while True:
            try:
                if (found := await self._look(search)) is not None:
                    return found
                error: HeadraceError = search.why_not()
            except BusError as unavailable:
                error = BrokerUnavailable(
                    f"request {public_id(key)} could not be located: {unavailable}",
                    retry_after_s=DEFAULT_RETRY_S,
                )
            if self._clock.monotonic_s() + pause_s >= ends_s:
                raise error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _look(self, search: _Search) -> Attachable | None:
        key = search.key
        if (near := await self.near(key)) is not None:
            return near
        message = LocateRequest(
            request_id=key,
            verb=LocateRequest.VERB_TAKE_OVER,
            gateway_id=self._gateway_id,
            delivery_address=self._takeovers.delivery_address,
            unreachable_gateway_id=search.unreachable,
        )
        answers = await ask_leaders(self._bus, search.models, message, timeout_s=ANSWER_S)
        found = next((answer for answer in answers if answer is not None and answer.found), None)
        if found is None:
            if None in answers:
                return None
            # Why once more: it may have ended since, and its result is stored before its leader
            # forgets it.
            if (near := await self.near(key)) is not None:
                return near
            raise RequestNotFound(
                f"request {public_id(key)} not found: it is not running and no stored result"
                " exists",
                field="request_id",
            )
        if found.pending:
            return None
        if found.record.gateway_id == self._gateway_id:
            return self._takeovers.given(found.record)
        return await self._dial(search, found)

    async def near(self, key: str) -> Attachable | None:
        """As `resumer.Finding` has it."""
        if (open_request := self._requests.find(key)) is not None:
            return OpenHere(open_request)
        if (result := self._settlements.find(key)) is not None:
            return Ended(result)
        stored = await self._bus.get_result(key)
        return None if stored is None else Ended(ResultRecord.FromString(stored))

    async def _dial(self, search: _Search, found: LocateResponse) -> Attachable | None:
        try:
            return await Remote.reach(found.record.delivery_address, search.key)
        except (RequestNotFound, Unreachable) as error:
            # Not found: it ended there a moment ago, or another run of it listens there now.
            search.unreachable, search.fact = found.record.gateway_id, str(error)
            return None


@dataclass(slots=True)
class _Search:
    key: str
    models: list[str]
    unreachable: str = ""
    """Gateway that holds it, and could not be reached from here."""
    fact: str = ""

    def why_not(self) -> HeadraceError:
        what = f"the gateway that has request {public_id(self.key)} cannot be reached ({self.fact})"
        if not self.unreachable:
            what = f"no scheduler knows yet where request {public_id(self.key)} is"
        return GatewayUnreachable(what, retry_after_s=DEFAULT_RETRY_S)
