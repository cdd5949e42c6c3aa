"""Names of priorities."""

from __future__ import annotations

from headrace.v1 import common_pb2


def priority_name(priority: common_pb2.Priority.ValueType) -> str:
    """Return the name as in `headrace.bus.subjects.PRIORITIES`, and in metric labels."""
    return common_pb2.Priority.Name(priority).removeprefix("PRIORITY_").lower()
