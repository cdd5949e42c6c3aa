"""Reports are said until answered, together with what came meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from headrace.bus import NoReply
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace_gateway.stream.losses import MAX_PAYLOAD_BYTES, payloads
from headrace_gateway.stream.reporting import ModelReporters, Reporter
from helpers.eventually import eventually


class Listener:
    """Somebody who may be away, and may be slow."""

    def __init__(self) -> None:
        self.heard: list[list[int]] = []
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0

    async def hear(self, items: list[int]) -> None:
        self.asked += 1
        if self.is_away:
            raise NoReply("away")
        heard = list(items)
        await self.may_answer.wait()
        self.heard.append(heard)


@asynccontextmanager
async def running(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_comes_while_a_message_is_in_flight_goes_in_the_next() -> None:
    listener = Listener()
    reporter = Reporter[int]("numbers", listener.hear)
    listener.may_answer.clear()
    async with running(reporter.run):
        reporter.add(1)
        await eventually(lambda: listener.asked == 1)
        for number in (2, 3, 4):
            reporter.add(number)
        listener.may_answer.set()
        await eventually(lambda: len(reporter) == 0)
    assert listener.heard == [[1], [2, 3, 4]]


async def test_nothing_is_given_up_while_nobody_answers() -> None:
    listener = Listener()
    listener.is_away = True
    reporter = Reporter[int]("numbers", listener.hear)
    async with running(reporter.run):
        reporter.add(1)
        reporter.add(2)
        await eventually(lambda: listener.asked >= 2)
        assert len(reporter) == 2
        listener.is_away = False
        await eventually(lambda: len(reporter) == 0)
    assert listener.heard == [[1, 2]]


async def test_a_model_without_a_leader_holds_up_no_other() -> None:
    heard: list[tuple[str, list[int]]] = []

    async def send(model: str, items: list[int]) -> None:
        if model == "orphan":
            raise NoReply("away")
        heard.append((model, list(items)))

    reporters = ModelReporters[int]("numbers", send)
    async with running(reporters.run):
        reporters.add("orphan", 1)
        reporters.add("toy", 2)
        await eventually(lambda: heard == [("toy", [2])])
        assert len(reporters) == 1


def test_resume_points_are_portioned_to_what_a_message_takes() -> None:
    point = ResumePoint(progress=[ChoiceProgress(output_ids=range(10**6, 10**6 + 60_000))])
    portions = list(payloads([point] * 5))
    assert [len(portion) for portion in portions] == [2, 2, 1]
    assert all(sum(p.ByteSize() for p in portion) <= MAX_PAYLOAD_BYTES for portion in portions)
