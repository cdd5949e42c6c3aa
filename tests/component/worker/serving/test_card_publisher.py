"""A worker's card in the store: what it keeps of the one before."""

from __future__ import annotations

from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_worker.serving.card_publisher import CardPublisher

NAME = "Qwen/Qwen3-0.6B"


def card(created_s: int, *, context_tokens: int = 8) -> ModelCard:
    made = ModelCard(model=NAME, tokenizer_digest="t1", context_tokens=context_tokens)
    made.create_time.seconds = created_s
    return made


async def stored(bus: JetStreamBus) -> ModelCard:
    return ModelCard.FromString(await bus.get_card(NAME) or b"")


async def test_a_model_is_as_old_as_its_first_card_whichever_worker_announces_it(
    bus: JetStreamBus,
) -> None:
    await CardPublisher(bus, card(100), b"bundle").publish()
    await CardPublisher(bus, card(200, context_tokens=9), b"bundle").publish()
    found = await stored(bus)
    assert (found.create_time.seconds, found.context_tokens) == (100, 9)


async def test_a_model_that_was_removed_begins_anew(bus: JetStreamBus) -> None:
    removed = card(100)
    removed.removed = True
    await bus.put_card(NAME, removed.SerializeToString())
    await CardPublisher(bus, card(200), b"bundle").publish()
    found = await stored(bus)
    assert (found.create_time.seconds, found.removed) == (200, False)
