"""Idempotency keys: a request that is sent again runs once, and both calls get the same answer.

A key makes the request's id and seed, so the request is found wherever it is. Two calls of tenant t
with the key k reach gateways g and h at the same moment:

    g, h     id = once-<hash of t, k>; no leader knows it and no result is stored: both publish it
    leader   reads g's record first and runs it; h's record is a duplicate: h gets RequestExists
    h        JoinOnDuplicate abandons its own copy, locates the request at g and reads it there
    g, h     send the same tokens; g settles the request
    later    a third call finds the stored result and gets the same answer

If the key was used with other parameters, the call is refused. A request that failed runs again,
unless it is a background request: that keeps its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from hashlib import blake2b

from headrace.errors import (
    GatewayUnreachable,
    HeadraceError,
    InvalidRequest,
    RequestExists,
    RequestNotFound,
)
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.base.calls import Call
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.position import EventId
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.request.generation import Event, Failed, Generation, ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.submit.submitter import Submitter

HEADER = "Idempotency-Key"
_LONGEST = 255


def idempotency_key(call: Call) -> str | None:
    """
    Raises:
        InvalidRequest: it is none.
    """
    key = call.headers.get(HEADER.lower())
    if key is not None and not 0 < len(key) <= _LONGEST:
        raise InvalidRequest(
            f"{HEADER} has {len(key)} characters; it may have 1 to {_LONGEST}", field=HEADER
        )
    return key


def named_by_key(requested: GenerationRequest, key: str) -> GenerationRequest:
    """The request by the name that a tenant's key makes, and with the seed, if it has none."""
    digest = blake2b(f"{requested.caller.tenant}\0{key}".encode(), digest_size=24).digest()
    seed = int.from_bytes(digest[16:]) if requested.seed is None else requested.seed
    return replace(requested, request_id=f"once-{digest[:16].hex()}", seed=seed, idempotent=True)


async def open_named(
    requested: GenerationRequest, submitter: Submitter, resumer: AnswerResumer, *, named: bool
) -> tuple[Answer, ValidRequest]:
    """The answer to a new request; `named`: its caller has chosen its id.

    A name of a detached request is that request's for as long as its result is kept: a call that
    sends it again gets its answer, and nothing replaces that.

    Raises:
        RequestExists: the name is another request's.
        HeadraceError: it was refused; nothing is held.
    """
    if named and (requested.background or await resumer.names_detached(requested.key)):
        field = requested.name_of("request_id")
        return await open_or_join(requested, submitter, resumer, field=field, detached=True)
    return await submitter.open(requested)


async def open_or_join(
    requested: GenerationRequest,
    submitter: Submitter,
    resumer: AnswerResumer,
    *,
    field: str = HEADER,
    detached: bool = False,
) -> tuple[Answer, ValidRequest]:
    """The answer to a request under a key or a name, whichever call came first with it.

    What failed runs again, unless it is `detached`: that has the end that it had.

    Raises:
        InvalidRequest: the key has been another request's.
        RequestExists: the same, where `detached`.
        HeadraceError: it was refused; nothing is held.
    """
    request = await submitter.repeated(requested)
    event = EventId(request.request_id, "")
    like = partial(
        resumer.find_as, seeded=requested.seed is not None, field=field, detached=detached
    )

    async def join() -> Generation:
        return await (await like(event, request)).open()

    def seen(own: Generation) -> Generation:
        return JoinOnDuplicate(own, join)

    again = partial(resumer.resume_as, event, request, seen=seen, **like.keywords)
    try:
        return await again(failed=detached), request
    except RequestNotFound:
        pass
    except GatewayUnreachable:
        # Where no leader can say so now, the next one lets the first of two go on.
        if not detached:
            raise
    try:
        return await submitter.open(requested, seen=seen)
    except RequestExists:
        # Another call has brought it here since.
        return await again(), request


class JoinOnDuplicate(Generation):
    """A generation of our own, or of the gateway whose request the leader had before ours."""

    def __init__(self, own: Generation, join: Callable[[], Awaitable[Generation]]) -> None:
        super().__init__(own.request_id, own.arrival_s)
        self._read, self._join = own, join

    async def events(self) -> AsyncIterator[list[Event]]:
        async for events in self._read.events():
            if not any(map(_is_second, events)):
                yield events
                continue
            await self._read.abandon()
            try:
                self._read = await self._join()
            except HeadraceError as error:
                yield [Failed(error)]
                return
            async for others in self._read.events():
                yield others
            return

    def end_choice(self, choice: int) -> None:
        self._read.end_choice(choice)

    async def settle(self, outcome: RequestOutcome) -> None:
        await self._read.settle(outcome)

    async def abandon(self) -> None:
        await self._read.abandon()


def _is_second(event: Event) -> bool:
    """Whether another request of its name was there before."""
    return isinstance(event, Failed) and isinstance(event.error, RequestExists)
