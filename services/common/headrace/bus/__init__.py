"""The message bus as the services use it: messages, durable lanes, model cards, leases, results,
tables, usage records.

Only `headrace.bus.jetstream` knows that it is NATS. Payloads are serialized protobuf messages of
headrace.internal.v1; `headrace.bus.subjects` says which message travels where.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.bus.errors import (
    BusError,
    BusUnavailable,
    LaneBroken,
    LaneLimitReached,
    LeaseTaken,
    NoReply,
    NoResponders,
    StoreRefused,
)
from headrace.bus.journal import Journal
from headrace.bus.objects import Conversations, Objects, Responses
from headrace.bus.snapshots import Snapshots
from headrace.bus.store_probe import StoreProbe
from headrace.bus.usage import UsageStream
from headrace.credentials.tls_files import TlsFiles
from headrace.extras import require

__all__ = (  # what is defined elsewhere
    "BusError",
    "BusUnavailable",
    "LaneBroken",
    "LaneLimitReached",
    "LeaseTaken",
    "NoReply",
    "NoResponders",
    "StoreRefused",
)

RESULT_KEPT_S = 600.0
"""How long a result is kept by default."""
RESULT_KEPT_AT_MOST_S = 7 * 24 * 3600.0

OnMessage = Callable[[bytes], None]
"""Called on the event loop, in order of arrival; must not block and must not raise."""
RequestHandler = Callable[[bytes], Awaitable[bytes]]


class Subscription(Protocol):
    async def close(self) -> None: ...


class Messages(Protocol):
    """Core NATS: a message reaches the current subscribers at most once."""

    @property
    def connected(self) -> bool: ...

    @property
    def fault(self) -> str:
        """Why the broker cannot store, as its supervisor reports; empty if it can, or without a
        supervisor."""
        ...

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        ...

    async def reconnected_since(self, reconnects: int) -> None:
        """Return once there were more reconnects than these."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send a message, which is dropped while the broker is away: reports are repeated."""
        ...

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a message and return the reply.

        Raises:
            NoReply: no process serves the subject, or none replied in `timeout_s`.
            BusUnavailable: the broker is away.
        """
        ...

    async def subscribe(self, subject: str, on_message: OnMessage) -> Subscription: ...

    async def serve(self, subject: str, answer: RequestHandler) -> Subscription:
        """Reply to requests on a subject, each in a task of its own.

        An exception of `answer` is logged and leaves the request without a reply.
        """
        ...


@dataclass(frozen=True, slots=True)
class PulledMessage:
    """A stored message that the lane's leader has pulled; it is stored until acknowledged."""

    payload: bytes
    sequence: int
    """Position in the stream; rises with time, equal for redeliveries of one message."""
    acknowledgement: str
    """Opaque; for `LaneReader.acknowledge`."""


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    lane: str
    """The lane id of its model; in letters from versions without lane ids, the model's name."""
    letter: bytes
    """A DeadLetter."""
    sequence: int = 0
    """Its number in the stream of dead letters, by which it is found again."""


class LaneReader(Protocol):
    """The leader's reader of one lane. Another reader of the lane makes this one useless."""

    async def pull(self, *, max_messages: int, timeout_s: float) -> list[PulledMessage]:
        """Return the lane's next messages, oldest first; none if none came in `timeout_s`.

        Raises:
            BusUnavailable: the broker is away, or another reader has taken the lane over.
            LaneBroken: this reader will never receive some message of the lane.
        """
        ...

    @property
    def arrived(self) -> int:
        """How many deliveries `pull` has returned."""
        ...

    async def end(self) -> int:
        """Return what `arrived` is once all that the lane holds now has been pulled.

        Raises:
            BusUnavailable: it is not known.
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
        """Store a request; return its `PulledMessage.sequence`.

        Repeats of a `message_id` are stored once.

        Raises:
            LaneLimitReached: the broker's bound of the lane is reached.
            BusUnavailable: it is not known to be stored; repeat with the same `message_id`.
        """
        ...

    async def take_over(self, model: str, priority: str) -> LaneReader:
        """Become the lane's reader; all unacknowledged messages come again, oldest first."""
        ...

    async def store_dead_letter(self, model: str, letter: bytes) -> None:
        """Store a DeadLetter."""
        ...

    async def dead_letters(self, *, limit: int) -> list[StoredDeadLetter]:
        """Return the latest dead letters, newest first.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    async def dead_letter(self, sequence: int) -> StoredDeadLetter | None:
        """Return the dead letter of this number; None if there is none any more.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...


class Cards(Protocol):
    """Model cards, and the tokenizer bundles that they name. A card stays until it is removed."""

    async def put_card(self, model: str, card: bytes) -> None: ...

    async def get_card(self, model: str) -> bytes | None: ...

    async def all_cards(self) -> list[bytes]: ...

    async def replace_card(self, model: str, card: bytes, successor: bytes | None) -> bool:
        """Replace this card, or delete it; return False if it has changed since it was read."""
        ...

    async def watch_cards(self, on_card: Callable[[str, bytes], None]) -> Subscription:
        """Call `on_card` with the lane id and the card of every model, then for every change.

        A card that was deleted comes as no bytes.
        """
        ...

    async def put_tokenizer(self, digest: str, bundle: bytes) -> None:
        """Store a bundle under its digest, unless it is stored already."""
        ...

    async def get_tokenizer(self, digest: str) -> bytes:
        """Return a bundle.

        Raises:
            KeyError: it is not stored.
        """
        ...


class Leases(Protocol):
    """Leadership: named leases that one process holds for a time."""

    async def acquire(self, name: str, holder: str, *, ttl_s: int) -> int:
        """Take a lease that is free or expired; return its epoch, which only grows for a name.

        Raises:
            LeaseTaken: another process holds it.
        """
        ...

    async def renew(self, name: str, holder: str, *, ttl_s: int) -> None:
        """Prolong a lease that this process acquired.

        Raises:
            LeaseTaken: it expired, and another process has it.
        """
        ...

    async def release(self, name: str) -> None: ...


class Results(Protocol):
    """ResultRecords of ended requests, kept for a time."""

    async def put_result(self, request_id: str, record: bytes, *, kept_s: float = 0.0) -> None:
        """Store a result for `kept_s`, at most RESULT_KEPT_AT_MOST_S; 0 is RESULT_KEPT_S."""
        ...

    async def get_result(self, request_id: str) -> bytes | None: ...


class Tables(Protocol):
    """Small tables that one process writes and many watch: keys, tenants, sessions.

    Row keys are text of A-Z a-z 0-9 . _ - =. Deleting a row is remembered by the broker.
    """

    async def put_row(self, table: str, key: str, row: bytes) -> None:
        """Store a row.

        Raises:
            BusUnavailable: it is not known to be stored; repeat.
        """
        ...

    async def delete_row(self, table: str, key: str) -> None:
        """Delete a row, which need not exist. Raises as `put_row`."""
        ...

    async def rows(self, table: str) -> dict[str, bytes]:
        """Return the whole table as it is now. Raises as `put_row`."""
        ...

    async def table_sequence(self, table: str) -> int:
        """Return how many rows were put and deleted, by whomever. Raises as `put_row`."""
        ...

    async def watch_table(
        self,
        table: str,
        on_table: Callable[[dict[str, bytes]], None],
        on_row: Callable[[str, bytes | None], None],
    ) -> Subscription:
        """Call `on_table` with the whole table, then `on_row` for every change; None: deleted.

        The table is read whole again, and `on_table` called again, after every reconnect, also to
        a broker that has lost its store. Changes come within milliseconds.
        """
        ...


class Bus(
    Messages,
    Lanes,
    Cards,
    Leases,
    Results,
    Responses,
    Conversations,
    Tables,
    Objects,
    StoreProbe,
    Snapshots,
    UsageStream,
    Journal,
    Protocol,
):
    """All of it. Services take the parts that they use."""

    async def close(self) -> None: ...


async def connect(
    url: str,
    *,
    name: str,
    wait_s: float = 30.0,
    replicas: int | None = 1,
    tls: TlsFiles | None = None,
    credentials_file: Path | None = None,
) -> Bus:
    """Connect to NATS; see `headrace.bus.jetstream.connect`.

    Raises:
        BusUnavailable: there is no connection within `wait_s`.
        MissingExtra: the client of NATS is not installed.
    """
    require("mesh", "nats")
    # Why here: whoever imports the types of the bus does not need its client.
    from headrace.bus import jetstream

    return await jetstream.connect(
        url,
        name=name,
        wait_s=wait_s,
        replicas=replicas,
        tls=tls,
        credentials_file=credentials_file,
    )
