"""The hash that chains an audit event to the one before it. Pure.

    hash = SHA-256(hash of the event before, in hexadecimal, + JSON of this event)

The JSON is that of `hashed_json`, so that a reader of an export can check the chain with any
language: keys sorted, no spaces, UTF-8. The first event follows FIRST_HASH.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from headrace_control.base.records import AuditEvent

FIRST_HASH = "0" * 64


def hashed_json(event: AuditEvent) -> str:
    """Return what the hash covers: the whole event but for its hashes."""
    fields = event_fields(event)
    del fields["previous_hash"], fields["hash"]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def hash_of(event: AuditEvent) -> str:
    """Return the hash that the event must have after its `previous_hash`."""
    return sha256((event.previous_hash + hashed_json(event)).encode()).hexdigest()


def event_fields(event: AuditEvent) -> dict[str, Any]:
    """Return the event as exports have it; the time in RFC 3339, in UTC, to the millisecond."""
    time = event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return asdict(event) | {"time": time}
