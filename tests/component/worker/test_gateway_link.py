"""One link to one gateway, over a real stream: what is sent, in which slot, and when again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.logprobs import Logprobs
from headrace.rpc.delivery_secret import DeliverySecret, RequireDeliverySecret
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.runtime.assignments import HeldSequence
from headrace_worker.runtime.delivery import MESSAGE_ENTRIES, GatewayLink
from helpers.access_tables import write_secret
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor

STOP = FinishReason.FINISH_REASON_STOP
NONE = DeliverySecret(None)


class OwnerActor:
    """Holds sequences and notes how the gateway answers."""

    def __init__(self) -> None:
        self.held: list[HeldSequence] = []
        self.acknowledged_ids: list[str] = []
        self.cancelled_ids: list[str] = []
        self.given_up: list[str] = []
        self.on_cancelled: Callable[[HeldSequence], None] = lambda held: None

    def hold(self, request_id: str, *, output_ids: list[int] | None = None) -> HeldSequence:
        held = HeldSequence(
            sequence_id=len(self.held),
            request_id=request_id,
            choice=0,
            attempt=1,
            gateway_id="gw",
            first_index=0,
            output_ids=output_ids or [],
            accepted_s=0.0,
        )
        self.held.append(held)
        return held

    def of_gateway(self, gateway_id: str) -> list[HeldSequence]:
        return self.held

    def acknowledged(self, held: HeldSequence) -> None:
        self.acknowledged_ids.append(held.request_id)

    def cancelled(self, held: HeldSequence) -> None:
        self.cancelled_ids.append(held.request_id)
        self.on_cancelled(held)

    def unreachable(self, gateway_id: str) -> None:
        self.given_up.append(gateway_id)


@asynccontextmanager
async def linked(
    gw: GatewayActor,
    owner: OwnerActor,
    *,
    grace_s: float = 5.0,
    secret: DeliverySecret = NONE,
) -> AsyncIterator[GatewayLink]:
    link = GatewayLink("gw", gw.address, "w", owner, grace_s=grace_s, secret=secret)
    running = asyncio.create_task(link.run())
    try:
        yield link
        link.check_integrity()
    finally:
        running.cancel()
        await asyncio.wait([running])


def send(link: GatewayLink, held: HeldSequence, token_id: int) -> None:
    held.output_ids.append(token_id)
    link.tokens([(held, token_id)])


async def test_what_came_before_the_stream_was_up_is_sent_once_it_is(gw: GatewayActor) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        held = owner.hold("a")
        link.open(held)
        for token_id in (7, 8, 9):
            send(link, held, token_id)
        await eventually(lambda: gw.said("a").token_ids == [7, 8, 9])
        assert gw.said("a").openings == 1


async def test_a_slot_is_not_bound_anew_in_the_message_that_still_names_the_old(
    gw: GatewayActor,
) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        first, second, third = (owner.hold(name) for name in "abc")
        await eventually(lambda: len(gw.bound_slots) == 3)

        def on_cancelled(held: HeldSequence) -> None:
            # Between the two cancellations a step's output comes, and after them a new sequence.
            if held is first:
                send(link, second, 5)
            if held is second:
                link.open(owner.hold("new"))

        owner.on_cancelled = on_cancelled
        gw.cancel_together("a", "b")
        send(link, third, 6)
        await eventually(lambda: gw.said("new").openings == 1)
        send(link, owner.held[-1], 7)
        await eventually(lambda: gw.said("new").token_ids == [7])
        assert gw.said("new").tokens == {0: 7}


async def test_a_dropped_slot_is_bound_again_once_the_gateway_has_answered_for_it(
    gw: GatewayActor,
) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        dropped = owner.hold("a")
        await eventually(lambda: gw.bound_slots == [0])
        link.drop(dropped)
        link.open(owner.hold("b"))
        await eventually(lambda: gw.bound_slots == [0, 1])
        gw.cancel("a")
        gw.cancel("b")
        await eventually(lambda: owner.cancelled_ids == ["b"])
        for name in "cd":
            link.open(owner.hold(name))
            await eventually(lambda name=name: gw.said(name).openings == 1)
        assert gw.highest_slot <= 2
        link.check_integrity()


async def test_slots_of_a_long_lived_stream_do_not_grow_without_bound(gw: GatewayActor) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        await eventually(lambda: gw.open_streams == 1)
        for turn in range(50):
            held = owner.hold(f"r{turn}", output_ids=[1])
            link.open(held)
            if turn % 2:
                held.finish_reason = STOP
                link.end(held)
                await eventually(lambda held=held: held.request_id in owner.acknowledged_ids)
            else:
                await eventually(lambda held=held: gw.said(held.request_id).openings == 1)
                link.drop(held)
                gw.cancel(held.request_id)
        assert gw.highest_slot <= 3


async def test_much_that_is_sent_again_comes_in_messages_of_bounded_size(gw: GatewayActor) -> None:
    owner = OwnerActor()
    for name in "abcde":
        owner.hold(name, output_ids=[3] * (MESSAGE_ENTRIES * 2 // 5))
    async with linked(gw, owner):
        await eventually(lambda: len(gw.said("e").tokens) == MESSAGE_ENTRIES * 2 // 5)
    assert sum(gw.message_tokens) == MESSAGE_ENTRIES * 2
    assert max(gw.message_tokens) < MESSAGE_ENTRIES * 2


async def test_a_link_ends_when_its_gateway_stays_away(gw: GatewayActor) -> None:
    owner = OwnerActor()
    owner.hold("a")
    async with linked(gw, owner, grace_s=0.2):
        await eventually(lambda: gw.open_streams == 1)
        assert owner.given_up == []
        await gw.stop()
        await eventually(lambda: owner.given_up == ["gw"])


async def test_while_there_is_no_stream_nothing_is_sent_twice_later(gw: GatewayActor) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        held = owner.hold("a")
        await eventually(lambda: gw.bound_slots == [0])
        send(link, held, 4)
        await eventually(lambda: gw.said("a").token_ids == [4])
        gw.break_streams()
        await eventually(lambda: gw.open_streams == 0)
        send(link, held, 5)
        held.finish_reason = STOP
        link.end(held)
        await eventually(lambda: owner.acknowledged_ids == ["a"])
        assert gw.said("a").token_ids == [4, 5]
        assert len(gw.said("a").endings) == 1


def some_logprobs(tokens: int, *, width: int) -> Logprobs:
    """No two alike."""
    numbers = [-place / 2 for place in range(tokens * width)]
    return Logprobs.of([-float(at) for at in range(tokens)], range(tokens * width), numbers)


async def test_logprobs_come_beside_their_tokens_and_again_on_the_next_stream(
    gw: GatewayActor,
) -> None:
    owner, logprobs = OwnerActor(), some_logprobs(7, width=3)
    async with linked(gw, owner) as link:
        await eventually(lambda: gw.open_streams == 1)
        silent, held = owner.hold("silent"), owner.hold("wanted")
        held.logprobs, held.prompt_logprobs = Logprobs(), Logprobs()
        for each in (silent, held):
            link.open(each)
        for begin in (0, 4):
            piece = logprobs.cut(begin, begin + 4)
            link.prompt(held, piece)
            held.prompt_logprobs.extend(piece)
        for at in range(7):
            for each in (silent, held):
                each.output_ids.append(at)
            held.logprobs.extend(logprobs.cut(at, at + 1))
            link.tokens([(silent, at), (held, at)])
        for streams in (1, 2):
            await eventually(lambda streams=streams: gw.streams == streams)
            await eventually(lambda: len(gw.said("wanted").logprobs) == 7)
            assert gw.said("wanted").prompt_logprobs == logprobs
            assert [gw.said("wanted").logprobs[at] for at in range(7)] == [
                logprobs.cut(at, at + 1) for at in range(7)
            ]
            assert gw.said("silent").logprobs == {}
            gw.said("wanted").logprobs.clear()
            gw.break_streams()


async def test_logprobs_count_towards_the_size_of_a_message(gw: GatewayActor) -> None:
    owner = OwnerActor()
    tokens = MESSAGE_ENTRIES // 10
    for name in "abc":
        held = owner.hold(name, output_ids=[3] * tokens)
        held.logprobs = held.prompt_logprobs = some_logprobs(tokens, width=20)
    async with linked(gw, owner):
        await eventually(lambda: len(gw.said("c").logprobs) == tokens)
        assert len(gw.said("a").prompt_logprobs) == tokens
    assert max(gw.message_bytes) < 2**21


async def test_what_was_cached_of_a_prompt_is_sent_before_its_output_on_every_stream(
    gw: GatewayActor,
) -> None:
    owner = OwnerActor()
    async with linked(gw, owner) as link:
        held, never = owner.hold("a"), owner.hold("b")
        await eventually(lambda: len(gw.bound_slots) == 2)
        link.cached(held, 48)
        send(link, held, 7)
        send(link, never, 7)
        await eventually(lambda: gw.said("a").token_ids == gw.said("b").token_ids == [7])
        assert (gw.said("a").cached_prompts, gw.said("b").cached_prompts) == ([48], [])
        gw.break_streams()
        await eventually(lambda: gw.said("b").openings == 2)
        send(link, held, 8)
        await eventually(lambda: gw.said("a").token_ids == [7, 8])
        assert (gw.said("a").cached_prompts, gw.said("b").cached_prompts) == ([48, 48], [])


async def test_each_stream_shows_the_secret_of_its_time(gw: GatewayActor, tmp_path: Path) -> None:
    ours, theirs = (write_secret(tmp_path / name, "first") for name in ("ours", "theirs"))
    await gw.stop()
    gw.interceptors.append(RequireDeliverySecret(DeliverySecret(theirs, recheck_s=0)))
    await gw.start()
    owner = OwnerActor()
    held = owner.hold("a")
    async with linked(gw, owner, secret=DeliverySecret(ours, recheck_s=0)) as link:
        await eventually(lambda: gw.open_streams == 1)
        write_secret(theirs, "second")
        send(link, held, 7)
        await eventually(lambda: gw.said("a").token_ids == [7])
        gw.break_streams()
        await eventually(lambda: gw.open_streams == 0)
        await asyncio.sleep(0.3)
        assert gw.streams == 1, "the old secret opens no stream"
        write_secret(ours, "second")
        send(link, held, 8)
        await eventually(lambda: gw.said("a").token_ids == [7, 8])
