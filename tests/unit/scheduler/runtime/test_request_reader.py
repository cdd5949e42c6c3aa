"""Stored messages: their times, and which of them are unreadable."""

from __future__ import annotations

import pytest

from headrace.bus import PulledMessage
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.runtime.request_reader import Unreadable, read_request

NOW_S, UNIX_S = 50.0, 1_000_000.0


def record() -> RequestRecord:
    return RequestRecord(request_id="a", model="tiny", gateway_id="g", n=1)


def read(message: bytes) -> Request:
    pulled = PulledMessage(message, 7, "ack 7")
    return read_request(pulled, model="tiny", priority="bulk", now_s=NOW_S, unix_s=UNIX_S)


def test_times_of_day_become_times_of_this_process() -> None:
    message = record()
    message.arrival.FromSeconds(int(UNIX_S) - 2)
    message.deadline.FromSeconds(int(UNIX_S) + 60)
    message.patience.FromSeconds(5)
    event = read(message.SerializeToString())
    assert (event.arrival_s, event.deadline_s, event.queue_deadline_s) == (48.0, 110.0, 53.0)


def test_without_deadline_and_patience_it_waits_for_ever() -> None:
    event = read(record().SerializeToString())
    assert (event.arrival_s, event.deadline_s) == (NOW_S, float("inf"))
    assert event.queue_deadline_s == float("inf")


def test_an_arrival_in_the_future_is_now() -> None:
    message = record()
    message.arrival.FromSeconds(int(UNIX_S) + 3600)
    assert read(message.SerializeToString()).arrival_s == NOW_S


def test_fields_of_a_later_version_survive() -> None:
    later = record().SerializeToString() + b"\xfa\x3f\x03new"
    assert read(later).record.SerializeToString() == later


@pytest.mark.parametrize("missing", ["request_id", "gateway_id", "model"])
def test_a_message_that_cannot_be_run_or_answered_is_unreadable(missing: str) -> None:
    message = record()
    message.ClearField(missing)  # type: ignore[arg-type]
    with pytest.raises(Unreadable):
        read(message.SerializeToString())


def test_a_message_that_is_no_record_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="not a RequestRecord"):
        read(b"\xff\xff\xff")
