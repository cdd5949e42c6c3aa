"""What audit events say of a change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import Any

_UNSAID = {"create_time", "update_time", "digests", "token_hash", "digest", "secrets"}
"""Set by the store, or secret."""


def changed(before: Any, after: Any) -> dict[str, Any]:
    """Return the fields of a record whose values differ, with those after the change."""
    return {
        each.name: _plain(getattr(after, each.name))
        for each in fields(after)
        if each.name not in _UNSAID and getattr(before, each.name) != getattr(after, each.name)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value
