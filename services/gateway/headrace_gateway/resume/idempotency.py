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
from hashlib import blake2b

from headrace.errors import HeadraceError, InvalidRequest, RequestExists
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation import Event, Failed, Generation
from headrace_gateway.request.generation_request import GenerationRequest

HEADER = "Idempotency-Key"
_LONGEST = 255


def apply_key(requested: GenerationRequest, call: Call) -> GenerationRequest:
    """Return the request with the id that the call's key makes, and with the seed, if it has none.

    A call without a key has the request that it had.

    Raises:
        InvalidRequest: the request has a name already, or the key is too long or empty.
    """
    if (key := call.headers.get(HEADER.lower())) is None:
        return requested
    if not 0 < len(key) <= _LONGEST:
        raise InvalidRequest(
            f"{HEADER} has {len(key)} characters; it may have 1 to {_LONGEST}", field=HEADER
        )
    if requested.request_id != call.request_id:
        raise InvalidRequest(
            f"request_id names the request already; leave it or {HEADER} out", field=HEADER
        )
    caller = requested.caller
    # Why the time: who takes the name of a tenant that was deleted gets none of its answers.
    created = f"@{caller.tenant_create_ms}" if caller.tenant_create_ms else ""
    digest = blake2b(f"{caller.tenant}{created}\0{key}".encode(), digest_size=24).digest()
    seed = int.from_bytes(digest[16:]) if requested.seed is None else requested.seed
    return replace(requested, request_id=f"once-{digest[:16].hex()}", seed=seed, idempotent=True)


class JoinOnDuplicate(Generation):
    """A generation of our own, or of the gateway whose request the leader had before ours."""

    def __init__(self, own: Generation, join: Callable[[], Awaitable[Generation]]) -> None:
        super().__init__(own.record)
        self._read, self._join = own, join

    async def events(self) -> AsyncIterator[list[Event]]:
        async for events in self._read.events():
            if not any(map(_is_duplicate, events)):
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

    def arrived(self) -> list[Event]:
        return self._read.arrived()

    def end_choice(self, choice: int, tokens: int) -> None:
        self._read.end_choice(choice, tokens)

    async def settle(self, outcome: RequestOutcome) -> None:
        await self._read.settle(outcome)

    async def abandon(self) -> None:
        await self._read.abandon()


def _is_duplicate(event: Event) -> bool:
    """Whether the leader has another request of the same id."""
    return isinstance(event, Failed) and isinstance(event.error, RequestExists)
