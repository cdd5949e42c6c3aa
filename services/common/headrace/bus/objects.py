"""What services store with the broker: objects of any size, cached answers, conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Protocol

from headrace.bus.errors import BusError

RESPONSE_KEPT_AT_MOST_S = 24 * 3600.0
CONVERSATION_KEPT_AT_MOST_S = 90 * 24 * 3600.0
MAX_PART_BYTES = 4 * 1024 * 1024
"""Half of what the broker takes as one message."""


class PartChanged(BusError):
    """Another process has stored the part since it was read; read it again."""


class ObjectDamaged(Exception):
    """The stored bytes are not those that were put; reading again does not help."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was put."""

    bytes: int
    sha256: str
    """Hexadecimal, of all bytes."""


class Objects(Protocol):
    """Sequences of bytes of any size, which are put and read piece by piece.

    Names are 1 to 100 of A-Z a-z 0-9 _ -, and of one object each: what is put under a name once is
    never changed, only deleted.
    """

    async def put_object(self, name: str, pieces: AsyncIterable[bytes]) -> StoredObject:
        """Store the pieces, of any sizes, as one object, which there is only once all are stored.

        What was stored is deleted if the pieces raise an error, the broker fails or the call is
        cancelled; if even that fails, or the process dies, `object_names` still has the name.

        Raises:
            StoreRefused: the broker has no room, or must not store more.
            BusUnavailable: it is away, and the object may be stored in part.
        """
        ...

    def get_object(self, name: str) -> AsyncGenerator[bytes]:
        """Yield an object's bytes in pieces of up to 256 KiB, as fast as they are taken.

        The last piece comes only once all have been found to be those that were put.

        Raises:
            KeyError: there is no whole object of this name.
            ObjectDamaged: bytes are missing, or are others.
            BusUnavailable: the broker is away.
        """
        ...

    async def delete_object(self, name: str) -> None:
        """Delete an object, or what there is of it; there need not be one.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...

    async def object_names(self) -> frozenset[str]:
        """Return the names of all objects, also of those that are stored in part.

        Raises:
            BusUnavailable: the broker is away.
        """
        ...


class Responses(Protocol):
    """The response cache: ResultRecords, by a model and a key in hexadecimal. The oldest go where
    there are too many."""

    async def put_response(self, model: str, key: str, record: bytes, *, kept_s: float) -> None:
        """Store an answer for `kept_s`, at most RESPONSE_KEPT_AT_MOST_S.

        Raises:
            BusUnavailable: it is not known to be stored.
        """
        ...

    async def get_response(self, model: str, key: str) -> bytes | None:
        """Return an answer; None if there is none. Raises BusUnavailable."""
        ...

    async def purge_responses(self, model: str) -> None:
        """Remove all answers of a model. Raises BusUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class StoredPart:
    payload: bytes
    sequence: int
    """Of this version of it."""


@dataclass(frozen=True, slots=True)
class PartSize:
    """What is known of a part without reading it."""

    item_id: str
    stored_ms: int
    """In Unix time."""
    bytes: int


class Conversations(Protocol):
    """Stored responses and conversations of tenants: items, each of one or more named parts.

    Ids are 1 to 128 of A-Z a-z 0-9 _ -. The oldest parts of all go where the stream is full; what a
    tenant may store is bounded by who stores it.
    """

    async def put_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, kept_s: float
    ) -> None:
        """Store a part for `kept_s`, at most CONVERSATION_KEPT_AT_MOST_S.

        An earlier one is not read any more, and counts as stored until its time is over.

        Raises:
            BusUnavailable: it is not known to be stored.
        """
        ...

    async def replace_part(
        self, tenant: str, item_id: str, part: str, payload: bytes, *, after: int, kept_s: float
    ) -> None:
        """Store a part if the version of it that is stored has the sequence `after`; 0: none is.

        Raises:
            PartChanged: it has not; nothing was stored.
            BusUnavailable: it is not known to be stored.
        """
        ...

    async def get_part(self, tenant: str, item_id: str, part: str) -> StoredPart | None:
        """Return a part; None if there is none. Raises BusUnavailable."""
        ...

    async def delete_item(self, tenant: str, item_id: str) -> None:
        """Delete all parts of an item, which need not exist. Raises BusUnavailable."""
        ...

    async def stored_parts(self, tenant: str) -> list[PartSize]:
        """Return all parts of a tenant, the oldest first. Raises BusUnavailable."""
        ...

    async def keep_newest(self, tenant: str, parts: int) -> None:
        """Delete all but so many parts of a tenant, the oldest first. Raises BusUnavailable."""
        ...
