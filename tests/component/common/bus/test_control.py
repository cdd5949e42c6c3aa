"""Drains over the bus: of the process, and of whether its supervisor starts it again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.bus import NoResponders
from headrace.bus.control import (
    DrainReply,
    request_drain,
    request_undrain,
    serve_drain,
    serve_drained_mark,
)
from headrace.bus.jetstream import JetStreamBus

NAME = "worker 1.*"


class Marks:
    """The marks of a supervisor, and what happened in order."""

    def __init__(self) -> None:
        self.drained = False
        self.events: list[object] = []

    def set(self, drained: bool) -> bool:
        was, self.drained = self.drained, drained
        self.events.append(f"mark {drained}")
        return was

    def drain(self) -> Callable[[float | None], None]:
        return self.events.append


async def test_a_process_is_requested_to_drain_with_its_grace(bus: JetStreamBus) -> None:
    graces: list[float | None] = []
    served = await serve_drain(bus, NAME, graces.append)
    for grace_s in (None, 0.0, 1.5):
        reply = await request_drain(bus, NAME, grace_s=grace_s, timeout_s=2)
        assert reply == DrainReply(drains=True, stays_stopped=False)
    assert graces == [None, 0.0, 1.5]
    await served.close()
    with pytest.raises(NoResponders):
        await request_drain(bus, NAME, timeout_s=2)


async def test_its_supervisor_marks_it_before_it_drains(bus: JetStreamBus) -> None:
    marks = Marks()
    await serve_drained_mark(bus, NAME, marks.set)
    served = await serve_drain(bus, NAME, marks.drain())
    reply = await request_drain(bus, NAME, timeout_s=2)
    assert reply == DrainReply(drains=True, stays_stopped=True)
    assert marks.events == ["mark True", None]
    await served.close()
    again = await request_drain(bus, NAME, timeout_s=2)
    assert again == DrainReply(drains=False, stays_stopped=True), "it has ended, and stays so"
    assert await request_undrain(bus, NAME, timeout_s=2)
    assert not await request_undrain(bus, NAME, timeout_s=2)


async def test_a_process_that_is_just_being_started_is_not_kept_from_it(bus: JetStreamBus) -> None:
    marks = Marks()
    await serve_drained_mark(bus, NAME, marks.set)
    with pytest.raises(NoResponders):
        await request_drain(bus, NAME, timeout_s=2)
    assert not marks.drained


async def test_without_a_supervisor_there_is_nothing_to_undo(bus: JetStreamBus) -> None:
    await serve_drain(bus, NAME, lambda _: None)
    with pytest.raises(NoResponders, match="no supervisor"):
        await request_undrain(bus, NAME, timeout_s=2)
