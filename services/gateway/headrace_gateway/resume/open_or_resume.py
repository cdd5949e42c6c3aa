"""Opens the answer to a call: of a new request, of one that it repeats, or the rest of one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from headrace.errors import (
    BrokerUnavailable,
    GatewayUnreachable,
    InvalidRequest,
    RequestExists,
    RequestNotFound,
)
from headrace.request_keys import public_id, request_key
from headrace.v1.requests_pb2 import Request
from headrace_gateway.base.calls import BatchRow, Call
from headrace_gateway.base.quoting import quoted
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.output.answering import Answer, rebuild_answer
from headrace_gateway.output.position import read_event_id, read_position
from headrace_gateway.request.generation import Generation, ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest
from headrace_gateway.resume.idempotency import HEADER as KEY_HEADER
from headrace_gateway.resume.idempotency import JoinOnDuplicate, apply_key
from headrace_gateway.resume.location import Location
from headrace_gateway.resume.ports import Directory
from headrace_gateway.resume.row_retries import may_run_again
from headrace_gateway.stream.stored_record import digest_of
from headrace_gateway.submit.submitter import Submitter

HEADER = "Last-Event-ID"
RESUME_HEADER = "X-Headrace-Resume"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def wants_event_ids(call: Call) -> bool:
    """Whether each event of a stream is to have an id. A call that resumes one wants them, too.

    Raises:
        InvalidRequest: the value of the header is neither true nor false.
    """
    value = call.headers.get(RESUME_HEADER.lower(), "false")
    if (is_true := _BOOLEANS.get(value.strip().lower())) is None:
        raise InvalidRequest(
            f"{RESUME_HEADER} is {quoted(value)}; it may be true or false", field=RESUME_HEADER
        )
    return is_true or bool(call.last_event_id)


def resume_position(request_id: str, after: str, call: Call) -> str:
    """Return the position from which a request is resumed: `after`, or that of the last event.

    Raises:
        InvalidRequest: the event was another request's.
    """
    if after or not call.last_event_id:
        return after
    event = read_event_id(call.last_event_id, field=HEADER)
    if event.request_id != request_id:
        raise InvalidRequest(
            f"{HEADER} is of request {event.request_id}, the path of {request_id}", field=HEADER
        )
    return event.position


@dataclass(frozen=True, slots=True)
class _Repeated:
    """A request that a client sends again, by which the first one is recognized."""

    request: ValidRequest
    seeded: bool
    """The client has chosen its seed."""
    field: str
    """The field or header that names the first one."""
    background: bool = False
    """Its name is to be that of a background request, which no other request may have then."""
    accepts_failed: bool = True
    is_row: bool = False
    """It is a row of a batch, which runs again where its run has failed for want of capacity."""

    def check(self, location: Location) -> None:
        """
        Raises:
            RequestNotFound: the first one has failed, and that is not accepted.
            RequestExists: it is another request, where `background`.
            InvalidRequest: it is another request.
            RunOver: it is a run of this row, and another run is to follow.
        """
        record, request = location.record, self.request
        shown = public_id(record.request_id)
        is_same = record.rendering.digest == digest_of(request) and (
            not self.seeded or record.seed == request.seed
        )
        if self.is_row and (not is_same or may_run_again(location)):
            raise RunOver
        if self.background and not (record.detached and is_same):
            raise RequestExists(
                f"request {quoted(shown)} exists with other parameters; choose another request_id",
                field=self.field,
            )
        if not is_same:
            raise InvalidRequest(
                f"request {shown} had other parameters than this one; repeat its parameters, or"
                f" omit {self.field}",
                field=self.field,
            )
        if location.failed and not self.accepts_failed:
            raise RequestNotFound(f"request {shown} has failed", field=self.field)


class RunOver(Exception):
    """A run of a batch's row has ended, and does not answer it."""


class RequestOpener:
    """Opens requests and their answers, for the calls of every API."""

    def __init__(self, catalog: Catalog, submitter: Submitter, directory: Directory) -> None:
        self._catalog, self._submitter, self._directory = catalog, submitter, directory

    async def open_or_resume(
        self, requested: GenerationRequest, call: Call
    ) -> tuple[Answer, ValidRequest]:
        """The answer, or its rest after the call's Last-Event-ID, and the request of the call.

        Raises:
            HeadraceError: it was refused; nothing is held.
        """
        if not call.last_event_id:
            return await self.open(apply_key(requested, call), call)
        if not requested.stream:
            raise InvalidRequest(
                f"{HEADER} is for streams; request a stream, or leave it out", field=HEADER
            )
        event = read_event_id(call.last_event_id, field=HEADER)
        request = await self._submitter.repeated(requested)
        repeated = _Repeated(request, requested.seed is not None, HEADER)
        key = request_key(request.tenant, event.request_id)
        return await self._read_again(repeated, key, event.position), request

    async def open(self, requested: GenerationRequest, call: Call) -> tuple[Answer, ValidRequest]:
        """The answer to a new request, or to the one that has its key or name already.

        A name of a background request is that request's for as long as its result is stored: a call
        that sends it again gets its answer, and nothing replaces that.

        Raises:
            RequestExists: the name is another request's.
            HeadraceError: it was refused; nothing is held.
        """
        if requested.row is not None and requested.background:
            return await self._open_row(requested, requested.row)
        if requested.idempotent:
            return await self.open_or_join(requested, background=requested.background)
        is_named = requested.request_id != call.request_id
        if is_named and (requested.background or await self._names_background(requested.key)):
            field = requested.name_of("request_id")
            return await self.open_or_join(requested, field=field, background=True)
        return await self._submitter.open(requested)

    async def open_or_join(
        self, requested: GenerationRequest, *, field: str = KEY_HEADER, background: bool = False
    ) -> tuple[Answer, ValidRequest]:
        """The answer to a request under a key or a name, whichever call came first with it.

        A request that failed runs again, unless it is a background request: that keeps its end.

        Raises:
            InvalidRequest: the key has been another request's.
            RequestExists: the same, where `background`.
            HeadraceError: it was refused; nothing is held.
        """
        request = await self._submitter.repeated(requested)
        is_row = background and requested.row is not None
        seeded = requested.seed is not None
        repeated = _Repeated(request, seeded, field, background, is_row=is_row)

        async def join() -> Generation:
            # Why not as a row: a run that has ended meanwhile is the answer of this call.
            same, models = replace(repeated, is_row=False), [request.card.model]
            return await self._directory.open(request.key, same.check, models)

        def joined(own: Generation) -> Generation:
            return JoinOnDuplicate(own, join)

        first = replace(repeated, accepts_failed=background)
        try:
            return await self._read_again(first, request.key, seen=joined), request
        except RequestNotFound:
            pass
        except GatewayUnreachable:
            # Where no leader knows it now, the next one lets the first of two continue.
            if not background:
                raise
        try:
            return await self._submitter.open(requested, seen=joined)
        except RequestExists:
            # Another call has brought it here since.
            return await self._read_again(repeated, request.key, seen=joined), request

    async def _open_row(
        self, requested: GenerationRequest, row: BatchRow
    ) -> tuple[Answer, ValidRequest]:
        """The answer to a row of a batch: of its first run that did not fail for want of capacity.

        A background request keeps its end, whatever that is, so each run has a name of its own.
        """
        if row.fresh:
            with suppress(RequestExists, RunOver):
                return await self._open_fresh(requested)
        for run in itertools.count():
            named = replace(requested, request_id=row.run_name(run))
            with suppress(RunOver):
                return await self.open_or_join(named, background=True)
        raise AssertionError("runs have no end")

    async def _open_fresh(self, requested: GenerationRequest) -> tuple[Answer, ValidRequest]:
        """As `open_or_join`, without looking for a request of the name first: the leader will."""

        async def join() -> Generation:
            request = await self._submitter.repeated(requested)
            check = _Repeated(request, seeded=True, field="request_id", background=True).check
            return await self._directory.open(request.key, check, [request.card.model])

        return await self._submitter.open(requested, seen=lambda own: JoinOnDuplicate(own, join))

    async def begin(self, requested: GenerationRequest, call: Call) -> Request:
        """Start a background request; return as soon as it is stored.

        If the caller has chosen its id, the call may repeat one whose response got lost.

        Raises:
            RequestExists: the id is another request's.
            HeadraceError: it was refused; nothing is held.
        """
        requested = apply_key(requested, call)
        is_named = requested.request_id != call.request_id
        if is_named and (same := await self._begun(requested)) is not None:
            return same
        try:
            answer, request = await self._submitter.open(requested)
        except RequestExists:
            # The same call has come here twice at once.
            if not is_named or (same := await self._begun(requested)) is None:
                raise
            return same
        async with answer:
            pass  # This gateway reads it in the background: this reader may leave.
        near = await self._directory.near(request.key)
        return (near or await self._directory.locate(request.key)).status()

    async def resume(self, key: str, after: str) -> Answer:
        """The rest of the answer to the request of this key.

        Raises:
            HeadraceError: there is none, or `after` is no place in it; nothing is held.
        """
        return await self._read(key, after, "after", lambda _: None)

    async def _begun(self, requested: GenerationRequest) -> Request | None:
        request = await self._submitter.repeated(requested)
        try:
            location = await self._directory.locate(request.key)
        except (RequestNotFound, GatewayUnreachable):
            # Where no leader knows it now, the next one lets the first of two continue.
            return None
        field, seeded = requested.name_of("request_id"), requested.seed is not None
        _Repeated(request, seeded, field, background=True).check(location)
        return location.status()

    async def _names_background(self, key: str) -> bool:
        """Whether a background request has this key, as far as is known without its leader."""
        try:
            near = await self._directory.near(key)
        except BrokerUnavailable:
            return False  # Nothing can be opened now either.
        return near is not None and near.record.detached

    async def _read_again(
        self,
        repeated: _Repeated,
        key: str,
        after: str = "",
        seen: Callable[[Generation], Generation] = lambda own: own,
    ) -> Answer:
        models = [repeated.request.card.model]
        return await self._read(key, after, repeated.field, repeated.check, models, seen)

    async def _read(
        self,
        key: str,
        after: str,
        field: str,
        check: Callable[[Location], None],
        models: list[str] | None = None,
        seen: Callable[[Generation], Generation] = lambda own: own,
    ) -> Answer:
        """Read a request that another call has opened, from a position on.

        Args:
            field: the field or header of the position.
            seen: the generation that the answer reads, of the one that was opened.
        """

        def check_readable(location: Location) -> None:
            check(location)
            record = location.record
            if not record.HasField("rendering"):
                raise RequestNotFound(
                    f"request {public_id(record.request_id)} has no text output",
                    field="request_id",
                )
            read_position(after, max(1, record.n), field=field)
            self._catalog.of_record(record.model)

        generation = await self._directory.open(key, check_readable, models)
        offsets = read_position(after, max(1, generation.record.n), field=field)
        return rebuild_answer(self._catalog, seen(generation), offsets)
