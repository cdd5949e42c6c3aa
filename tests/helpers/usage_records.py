"""Usage records as leaders publish them, and as the stream returns them."""

from __future__ import annotations

from typing import Any

from headrace.bus.usage import StoredUsage, UsagePosition
from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord, UsageRecords

START_MS = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC, when the clock of control's tests stands."""


STREAM = "2026-09-21T14:00:00Z"


def usage_record(sequence: int, **fields: Any) -> UsageRecord:
    """Return the record of a request of tenant acme, but for what `fields` say."""
    chosen: dict[str, Any] = {
        "source": "requests:1",
        "request_id": f"req-{sequence}",
        "tenant": "acme",
        "key_id": "k1",
        "model": "valley",
        "kind": UsageKind.USAGE_KIND_COMPLETIONS,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "output_tokens": 5,
        "arrival_ms": START_MS,
        "end_ms": START_MS + 1000,
        "attempts": 1,
        "n": 1,
        "engine": "headrace",
    }
    return UsageRecord(sequence=sequence, **(chosen | fields))


def usage_message(position: int, sequence: int | None = None, **fields: Any) -> StoredUsage:
    """Return the message of one record at a position of the stream."""
    return message_of(position, usage_record(position if sequence is None else sequence, **fields))


def message_of(position: int, *records: UsageRecord, stream: str = STREAM) -> StoredUsage:
    payload = UsageRecords(records=records).SerializeToString()
    return StoredUsage(UsagePosition(stream, position), payload)
