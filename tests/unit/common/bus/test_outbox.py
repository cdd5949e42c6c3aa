"""Items are sent until confirmed, together with what was added meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from headrace.bus import NoReply
from headrace.bus.outbox import MAX_MESSAGE_BYTES, Outbox, OutboxPerModel, portions
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress
from helpers.eventually import eventually


class Receiver:
    """A receiver that may be away, may be slow, and may not confirm some numbers the first time."""

    def __init__(self) -> None:
        self.received: list[list[int]] = []
        self.is_away = False
        self.rejects: set[int] = set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.calls = 0

    async def send(self, items: list[int]) -> list[int]:
        self.calls += 1
        if self.is_away:
            raise NoReply("away")
        received = list(items)
        await self.may_answer.wait()
        self.received.append(received)
        rejected = [item for item in items if item in self.rejects]
        self.rejects -= set(rejected)
        return rejected


@asynccontextmanager
async def running(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_items_added_while_a_batch_is_in_flight_go_with_the_next() -> None:
    receiver = Receiver()
    outbox = Outbox[int]("numbers", receiver.send)
    receiver.may_answer.clear()
    async with running(outbox.run):
        outbox.add(1)
        await eventually(lambda: receiver.calls == 1)
        for number in (2, 3, 4):
            outbox.add(number)
        receiver.may_answer.set()
        await eventually(lambda: len(outbox) == 0)
    assert receiver.received == [[1], [2, 3, 4]]


async def test_a_batch_waits_for_more_items_unless_it_is_full() -> None:
    receiver = Receiver()
    outbox = Outbox[int]("numbers", receiver.send, max_items=3, wait_s=0.05)
    async with running(outbox.run):
        outbox.add(1)
        await asyncio.sleep(0)
        assert receiver.calls == 0
        outbox.add(2)
        await eventually(lambda: len(outbox) == 0)
    assert receiver.received == [[1, 2]]
    full = Outbox[int]("numbers", receiver.send, max_items=3, wait_s=3600)
    for number in (3, 4, 5):
        full.add(number)
    async with running(full.run):
        await eventually(lambda: len(full) == 0)
    assert receiver.received[1:] == [[3, 4, 5]]


async def test_nothing_is_given_up_while_the_receiver_is_away() -> None:
    receiver, retries = Receiver(), list[int]()
    receiver.is_away = True
    outbox = Outbox[int]("numbers", receiver.send, on_retry=retries.append)
    async with running(outbox.run):
        outbox.add(1)
        outbox.add(2)
        await eventually(lambda: receiver.calls >= 2)
        assert len(outbox) == 2
        receiver.is_away = False
        await eventually(lambda: len(outbox) == 0)
    assert receiver.received == [[1, 2]]
    assert set(retries) == {2}


async def test_only_items_that_were_not_confirmed_are_sent_again_and_after_all_others() -> None:
    receiver, retries = Receiver(), list[int]()
    receiver.rejects = {1}
    outbox = Outbox[int]("numbers", receiver.send, max_items=2, on_retry=retries.append)
    async with running(outbox.run):
        for number in (1, 2, 3):
            outbox.add(number)
        await eventually(lambda: len(outbox) == 0)
    assert receiver.received == [[1, 2], [3, 1]]
    assert retries == [1]


async def test_an_item_replaces_an_older_one_of_its_key_and_is_sent_once_more() -> None:
    receiver = Receiver()
    outbox = Outbox[int]("numbers", receiver.send, key=lambda number: number % 10)
    outbox.add(1)
    outbox.add(11)
    receiver.may_answer.clear()
    async with running(outbox.run):
        await eventually(lambda: receiver.calls == 1)
        outbox.add(21)
        receiver.may_answer.set()
        await eventually(lambda: len(outbox) == 0)
    assert receiver.received == [[11], [21]]


async def test_one_can_wait_for_keys_to_be_confirmed_and_for_all() -> None:
    receiver = Receiver()
    outbox = Outbox[int]("numbers", receiver.send, key=lambda number: number, max_items=1)
    outbox.add(1)
    outbox.add(2)
    async with running(outbox.run), asyncio.timeout(5):
        await outbox.confirmed([1, 7])
        assert [1] in receiver.received
        await outbox.confirmed()
        await outbox.confirmed([2])
    assert receiver.received == [[1], [2]]


async def test_a_batch_has_no_more_bytes_than_a_message_takes() -> None:
    receiver = Receiver()
    outbox = Outbox[int]("sizes", receiver.send, size=lambda number: number)
    async with running(outbox.run):
        for _ in range(3):
            outbox.add(MAX_MESSAGE_BYTES // 2)
        await eventually(lambda: len(outbox) == 0)
    assert list(map(len, receiver.received)) == [2, 1]


async def test_a_model_without_a_leader_holds_up_no_other() -> None:
    received: list[tuple[str, list[int]]] = []

    async def send(model: str, items: list[int]) -> None:
        if model == "orphan":
            raise NoReply("away")
        received.append((model, list(items)))

    outboxes = OutboxPerModel[int]("numbers", send)
    async with running(outboxes.run):
        outboxes.add("orphan", 1)
        outboxes.add("toy", 2)
        await eventually(lambda: received == [("toy", [2])])
        assert len(outboxes) == 1


def test_resume_points_are_cut_into_portions_that_fit_a_message() -> None:
    point = ResumePoint(progress=[ChoiceProgress(output_ids=range(10**6, 10**6 + 60_000))])
    cut = list(portions([point] * 5, ResumePoint.ByteSize))
    assert [len(portion) for portion in cut] == [2, 2, 1]
    assert all(sum(p.ByteSize() for p in portion) <= MAX_MESSAGE_BYTES for portion in cut)
