"""Reads requests from the stored messages of a lane."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from headrace.bus import PulledMessage
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.request.live_request import Request

NEVER = float("inf")


class Unreadable(Exception):
    """No leader can ever run this message."""


def read_request(
    pulled: PulledMessage, *, model: str, priority: str, now_s: float, unix_s: float
) -> Request:
    """Return the request of a stored message.

    Timestamps are of the gateway's wall clock. They are converted to this process's
    monotonic clock once, here: a later jump of the wall clock makes no request expire.

    Raises:
        Unreadable: it is not a RequestRecord of this lane.
    """
    try:
        record = RequestRecord.FromString(pulled.payload)
    except DecodeError as error:
        raise Unreadable(f"not a RequestRecord: {error}") from error
    if not record.request_id:
        raise Unreadable("it has no request_id")
    if not record.gateway_id:
        raise Unreadable("it has no gateway_id: no gateway could be notified of its end")
    if record.model != model:
        raise Unreadable(f"it is for model {record.model!r}, in a lane of {model!r}")
    age_s = 0.0
    if record.HasField("arrival"):
        age_s = max(0.0, unix_s - record.arrival.ToNanoseconds() / 1e9)
    arrival_s = now_s - age_s
    deadline_s = queue_deadline_s = NEVER
    if record.HasField("deadline"):
        deadline_s = now_s + record.deadline.ToNanoseconds() / 1e9 - unix_s
    if record.HasField("patience"):
        queue_deadline_s = arrival_s + record.patience.ToNanoseconds() / 1e9
    return Request(
        record,
        priority,
        pulled.sequence,
        pulled.acknowledgement,
        arrival_s=arrival_s,
        deadline_s=deadline_s,
        queue_deadline_s=queue_deadline_s,
        stored_bytes=len(pulled.payload),
    )
