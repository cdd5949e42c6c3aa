"""When a waiting request gets its place in the queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from headrace.internal.v1.reports_pb2 import LaneReport, LaneState, TenantState
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.v1.common_pb2 import PRIORITY_STANDARD, FinishReason
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.queue.lanes import LaneView
from headrace_gateway.queue.queueing import news
from headrace_gateway.request.generation import ChoiceEnded, Queued, Tokens
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding

SETTINGS = GatewaySettings(queue_told_after_s=0.5, stream_keepalive_s=10.0)
STOP = FinishReason.FINISH_REASON_STOP


@dataclass
class ManualClock:
    now_s: float = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s


class SilentStream:
    def cancel(self, slot: int) -> None: ...


class Waiter:
    """One request in a lane whose leader reports."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.lanes = LaneView(fresh_s=60.0)
        record = RequestRecord(
            request_id="r",
            model="toy",
            priority=PRIORITY_STANDARD,
            sampling=Sampling(max_tokens=100),
        )
        self.open_request = OpenRequest(record, 600.0, self.clock, lambda *_: None)
        self.open_request.sequence = 9

    def report(self, *sequences: int, wait_s: int) -> None:
        state = LaneState(
            priority=PRIORITY_STANDARD,
            waiting=len(sequences),
            tenants=[
                TenantState(
                    tenant="default",
                    waiting=len(sequences),
                    estimated_wait=Duration(seconds=wait_s),
                    sequences=sequences,
                    ahead=range(len(sequences)),
                )
            ],
        )
        self.lanes.take(LaneReport(model="toy", epoch=1, lanes=[state]), self.clock.now_s)

    def told(self, now_s: float) -> Queued | None:
        self.clock.now_s = now_s
        queued = news(self.open_request, self.lanes, now_s, SETTINGS)
        if queued is not None:
            self.open_request.report_queued(queued)
        return queued


def test_a_waiting_request_gets_its_place_after_a_while_and_then_changes_once_a_second() -> None:
    waiter = Waiter()
    waiter.report(5, 9, wait_s=3)
    assert waiter.told(0.4) is None
    assert waiter.told(0.6) == Queued(1, 3.0)
    assert waiter.told(2.0) is None, "nothing has changed"
    waiter.report(9, wait_s=2)
    assert waiter.told(2.1) == Queued(0, 2.0)
    waiter.report(9, wait_s=1)
    assert waiter.told(2.9) is None, "the last was less than a second ago"
    assert waiter.told(3.2) == Queued(0, 1.0)


def test_where_nothing_changes_the_stream_is_kept_alive() -> None:
    waiter = Waiter()
    waiter.report(9, wait_s=3)
    assert waiter.told(0.6) == Queued(0, 3.0)
    assert waiter.told(10.5) is None
    assert waiter.told(10.7) == Queued(0, 3.0)


def test_where_nothing_is_known_the_stream_is_kept_alive_all_the_same() -> None:
    waiter = Waiter()
    assert waiter.told(0.6) is None
    assert waiter.told(10.1) == Queued()


def test_a_request_that_is_bound_or_has_ended_does_not_wait() -> None:
    open_request = Waiter().open_request
    assert open_request.is_waiting
    binding = SlotBinding(SilentStream(), 0, open_request, 0, 1)
    open_request.bind(binding)
    assert not open_request.is_waiting
    open_request.unbind(binding)
    assert open_request.is_waiting, "it has lost its worker"
    open_request.output.end(0, 1, STOP, 0)
    assert not open_request.is_waiting


async def test_tokens_come_before_news_of_a_wait_that_is_over() -> None:
    open_request = Waiter().open_request
    events = open_request.reader().events()
    open_request.report_queued(Queued(2, 1.0))
    assert await anext(events) == [Queued(2, 1.0)]
    open_request.report_queued(Queued(0, 0.0))
    open_request.bind(SlotBinding(SilentStream(), 0, open_request, 0, 1))
    open_request.output.take(0, 1, 0, 7)
    open_request.wake()
    assert await anext(events) == [Tokens(0, 0, [7])]
    open_request.output.end(0, 1, STOP, 1)
    open_request.wake()
    async with asyncio.timeout(5):
        assert await anext(events) == [ChoiceEnded(0, STOP)]


def test_a_request_that_waits_for_quota_gets_that_at_once_and_every_10_s() -> None:
    waiter = Waiter()
    waiter.report(9, wait_s=1)
    waiter.open_request.waits_for_quota = True
    found = news(waiter.open_request, waiter.lanes, 0.0, SETTINGS)
    assert found == Queued(waits_for_quota=True)
    waiter.open_request.report_queued(found)
    assert news(waiter.open_request, waiter.lanes, 9.9, SETTINGS) is None
    assert news(waiter.open_request, waiter.lanes, 10.0, SETTINGS) == found
    waiter.open_request.waits_for_quota = False
    assert news(waiter.open_request, waiter.lanes, 10.0, SETTINGS) == Queued(0, 1.0)
