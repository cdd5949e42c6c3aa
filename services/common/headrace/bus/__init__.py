"""The bus as the services see it: messages, durable lanes, cards, leases, results.

Only `headrace.bus.jetstream` knows that it is NATS. Payloads are serialised
protobuf messages of headrace.internal.v1; which message goes where is written
beside each subject in `headrace.bus.subjects`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

RESULT_KEPT_S = 600.0
"""How long a result is kept where nothing else is said."""
RESULT_KEPT_AT_MOST_S = 7 * 24 * 3600.0

OnMessage = Callable[[bytes], None]
"""Called on the event loop, in order of arrival; must not block and must not raise."""
RequestHandler = Callable[[bytes], Awaitable[bytes]]


class BusError(Exception):
    """Nothing is known to have happened; the same call may be made again."""


class BusUnavailable(BusError):
    """The broker cannot be reached, or did not answer in time."""


class StoreRefused(BusError):
    """The broker answers that it does not store, by a limit of its own."""


class NoReply(BusError):
    """No process serves this subject, or it did not answer in time."""


class NoResponders(NoReply):
    """No process serves this subject: whoever did is gone, or out of reach of the broker."""


class LaneLimitReached(BusError):
    """The broker holds as many unsettled requests of this lane as it may; nothing was stored."""


class LaneBroken(BusError):
    """Something that the lane gave out got lost on its way: take it over anew to have it again."""


class LeaseTaken(BusError):
    """Somebody else holds the lease."""


class Subscription(Protocol):
    async def close(self) -> None: ...


class Messages(Protocol):
    """Core NATS: at most once, to whoever listens now."""

    @property
    def connected(self) -> bool: ...

    @property
    def fault(self) -> str:
        """Why the broker cannot store now, as its supervisor reports; empty where it can, or where
        no supervisor reports."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send and forget. Dropped while the broker is away: reports repeat themselves."""
        ...

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send and wait for one answer.

        Raises:
            NoReply: none serves the subject, or none answered in `timeout_s`.
            BusUnavailable: the broker is away.
        """
        ...

    async def subscribe(self, subject: str, on_message: OnMessage) -> Subscription: ...

    async def serve(self, subject: str, answer: RequestHandler) -> Subscription:
        """Answer requests on a subject, each in a task of its own.

        An exception of `answer` is logged and leaves the request unanswered.
        """
        ...


@dataclass(frozen=True, slots=True)
class PulledMessage:
    """A stored message in the hands of its lane's leader; it stays stored until acknowledged."""

    payload: bytes
    sequence: int
    """Position in the stream; rises with time, equal for redeliveries of one message."""
    acknowledgement: str
    """Opaque; for `LaneReader.acknowledge`."""


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter."""

    lane: str
    """The lane id of its model; of letters of versions before lane ids, the model's name."""
    letter: bytes
    """A DeadLetter."""


class LaneReader(Protocol):
    """The leader's end of one lane. Opening another reader of the lane makes this one useless."""

    async def pull(self, *, max_messages: int, timeout_s: float) -> list[PulledMessage]:
        """The lane's next messages, oldest first; empty if none came in `timeout_s`.

        Raises:
            BusUnavailable: the broker is away, or another reader has taken the lane over.
            LaneBroken: this reader will never see all of the lane.
        """
        ...

    async def acknowledge(self, acknowledgement: str) -> None:
        """Remove a message for good.

        Raises:
            BusUnavailable: it is not known to be removed; repeat.
        """
        ...

    async def close(self) -> None: ...


class Lanes(Protocol):
    async def submit(self, model: str, priority: str, payload: bytes, *, message_id: str) -> int:
        """Store a request; returns its position in the stream, as `PulledMessage.sequence`, once it is
        stored. Repeats of a `message_id` are stored once.

        Raises:
            LaneLimitReached: the lane's bound in the broker is reached.
            BusUnavailable: not known to be stored; repeat with the same `message_id`.
        """
        ...

    async def take_over(self, model: str, priority: str) -> LaneReader:
        """Become the lane's reader: everything unacknowledged comes again, from the oldest."""
        ...

    async def store_dead_letter(self, model: str, letter: bytes) -> None:
        """Keep a DeadLetter."""
        ...


class Cards(Protocol):
    """Model cards, and the tokenizer bundles they refer to. A card stays until it is removed."""

    async def put_card(self, model: str, card: bytes) -> None: ...

    async def get_card(self, model: str) -> bytes | None: ...

    async def all_cards(self) -> list[bytes]: ...

    async def replace_card(self, model: str, card: bytes, successor: bytes | None) -> bool:
        """Put `successor` in place of this very card, or nothing; False if it has changed since."""
        ...

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> Subscription:
        """Called with the lane id and the card of every model there is, then for every change;
        with no bytes where a card has been deleted."""
        ...

    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        """Store a bundle under its digest; a no-op if it is there."""
        ...

    async def get_tokenizer(self, digest: str) -> bytes:
        """Raises KeyError if it is not there."""
        ...


class Leases(Protocol):
    """Leadership: a named, timed right of one holder."""

    async def acquire(self, name: str, holder: str, *, ttl_s: int) -> int:
        """Take a lease that is free or run out; returns its epoch, which only grows for a name.

        Raises:
            LeaseTaken: somebody holds it.
        """
        ...

    async def renew(self, name: str, holder: str, *, ttl_s: int) -> None:
        """Keep a lease that this process acquired.

        Raises:
            LeaseTaken: it ran out and somebody else took it.
        """
        ...

    async def release(self, name: str) -> None: ...


class Results(Protocol):
    """ResultRecords of ended requests, kept for a set time."""

    async def put_result(self, request_id: str, record: bytes, *, kept_s: float = 0.0) -> None:
        """`kept_s`: 0 is RESULT_KEPT_S; at most RESULT_KEPT_AT_MOST_S."""
        ...

    async def get_result(self, request_id: str) -> bytes | None: ...


class StoreProbe(Protocol):
    async def probe_store(self, *, timeout_s: float) -> None:
        """Store a message in place of the one before.

        Raises:
            StoreRefused: the broker answered that it does not.
            BusUnavailable: it did not answer in time, or is away.
        """
        ...


class Bus(Messages, Lanes, Cards, Leases, Results, Protocol):
    """All of it. Services ask for the parts they use."""

    async def close(self) -> None: ...
