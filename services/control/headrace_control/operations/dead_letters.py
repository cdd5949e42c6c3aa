"""Requests that failed on every attempt: listed, and sent again."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from headrace.admin.v1 import operations_pb2
from headrace.bus import Bus, LaneLimitReached, StoredDeadLetter
from headrace.clock import Clock
from headrace.errors import LaneFull, ResourceNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.priorities import priority_name
from headrace_control.operations.names import dead_letter_name, request_name
from headrace_control.operations.resend import (
    failed_request,
    require_same_model,
    resent,
    resent_key,
)

RETRY_S = 10.0


class DeadLetters:
    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock

    async def latest(self, limit: int) -> list[operations_pb2.DeadLetter]:
        """Return the latest, newest first. Raises BusUnavailable."""
        return [_listed(stored) for stored in await self._bus.dead_letters(limit=limit)]

    async def resend(self, sequence: int) -> str:
        """Send a dead letter's request again; return the key of the new request.

        Raises:
            ResourceNotFound: there is no dead letter of this number.
            FailedPrecondition: it cannot be run again.
            LaneFull: the broker stores no more of its lane.
            BusUnavailable: it is not known to be sent; repeat.
        """
        stored = await self._bus.dead_letter(sequence)
        if stored is None:
            raise ResourceNotFound(f"dead letter {sequence} not found; they are kept for a week")
        record = failed_request(DeadLetter.FromString(stored.letter), sequence)
        key = resent_key(record.request_id, sequence)
        if await self._bus.get_result(key) is not None:
            return key
        card = await self._bus.get_card(record.model)
        require_same_model(record, None if card is None else ModelCard.FromString(card))
        again = resent(record, sequence, unix_s=self._clock.unix_s())
        priority = priority_name(again.priority)
        try:
            # While it is live, its leader drops a second message of the same id.
            await self._bus.submit(again.model, priority, again.SerializeToString(), message_id=key)
        except LaneLimitReached as error:
            fact = f"{error}; retry in {RETRY_S:g} s"
            raise LaneFull(fact, retry_after_s=RETRY_S) from error
        return key


def _listed(stored: StoredDeadLetter) -> operations_pb2.DeadLetter:
    letter = DeadLetter.FromString(stored.letter)
    try:
        key = RequestRecord.FromString(letter.message).request_id
    except DecodeError:
        key = ""
    return operations_pb2.DeadLetter(
        name=dead_letter_name(stored.sequence),
        request=request_name(key) if key else "",
        model=letter.model or stored.lane,
        time=letter.time,
        attempts=letter.attempts,
        reason=letter.reason,
    )
