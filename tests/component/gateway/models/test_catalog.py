"""The catalogue follows the cards, on the real bus and on the stand-in that other tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from headrace.auth.caller import Caller
from headrace.bus import Cards
from headrace.bus.jetstream import JetStreamBus
from headrace.errors import ModelNotFound, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard, TokenizerBundle
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import Catalog
from helpers.running_api import CARD, StaticCards
from helpers.tiny_tokenizers import bundle, byte_level

EVERYBODY = Caller()
BUNDLE = bundle(byte_level()).SerializeToString()


@pytest.fixture(params=["jetstream", "static"])
def cards(request: pytest.FixtureRequest) -> Cards:
    if request.param == "static":
        return StaticCards({}, {})
    bus: JetStreamBus = request.getfixturevalue("bus")
    return bus


@asynccontextmanager
async def following(cards: Cards, *configured: str) -> AsyncIterator[Catalog]:
    catalog = Catalog(cards, GatewaySettings(configured_models=configured))
    task = asyncio.create_task(catalog.run())
    try:
        yield catalog
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def card(**changes: object) -> bytes:
    changed = ModelCard()
    changed.CopyFrom(CARD)
    changed.MergeFrom(ModelCard(**changes))  # type: ignore[arg-type]
    return changed.SerializeToString()


def is_waiting(catalog: Catalog, model: str) -> bool:
    try:
        catalog.get(model, EVERYBODY)
    except NoWorker:
        return True
    except ModelNotFound:
        return False
    return False


async def test_a_model_that_was_announced_before_or_after_the_start_is_known(cards: Cards) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_card("valley", card())
    async with following(cards) as catalog:
        await until(lambda: bool(catalog.base("valley")))
        await cards.put_card("delta", card(model="delta"))
        await until(lambda: bool(catalog.base("delta")))
        delta, valley = catalog.all()
        assert (delta.card.model, valley.card.model) == ("delta", "valley")
        assert delta.tokenizer is valley.tokenizer


async def test_an_unknown_model_is_refused_with_the_known_names(cards: Cards) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_card("valley", card())
    async with following(cards) as catalog:
        await until(lambda: bool(catalog.base("valley")))
        with pytest.raises(
            ModelNotFound, match=r"The model `river` does not exist; known models: valley"
        ):
            catalog.get("river", EVERYBODY)


async def test_a_card_that_comes_before_its_tokenizer_waits_for_it(cards: Cards) -> None:
    async with following(cards) as catalog:
        await cards.put_card("valley", card())
        await until(lambda: is_waiting(catalog, "valley"))
        await cards.put_tokenizer("t1", BUNDLE)
        await until(lambda: bool(catalog.base("valley")))


async def test_a_changed_card_replaces_the_old_one_once_its_tokenizer_is_there(
    cards: Cards,
) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_card("valley", card())
    async with following(cards) as catalog:
        await until(lambda: bool(catalog.base("valley")))
        await cards.put_card("valley", card(tokenizer_digest="t2", context_tokens=77))
        assert catalog.get("valley", EVERYBODY).card.context_tokens == 200
        await cards.put_tokenizer("t2", BUNDLE)
        await until(lambda: catalog.get("valley", EVERYBODY).card.context_tokens == 77)


@pytest.mark.parametrize("broken", [b"\xff\xff", card(model="broken", tokenizer_digest="bad")])
async def test_a_card_or_tokenizer_that_cannot_be_read_leaves_the_others_alone(
    cards: Cards, broken: bytes
) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_tokenizer("bad", TokenizerBundle(tokenizer_json=b"{}").SerializeToString())
    await cards.put_card("broken", broken)
    async with following(cards) as catalog:
        await until(lambda: is_waiting(catalog, "broken"))
        await cards.put_card("valley", card())
        await until(lambda: bool(catalog.base("valley")))
        assert is_waiting(catalog, "broken")


async def test_a_removed_model_is_unknown_at_once_and_known_again_when_it_is_announced(
    cards: Cards,
) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_card("valley", card(aliases=["small"]))
    async with following(cards) as catalog:
        await until(lambda: catalog.base("small") == "valley")
        marked = card(aliases=["small"], removed=True)
        assert await cards.replace_card("valley", card(aliases=["small"]), marked)
        await until(lambda: not catalog.base("valley"))
        for name in ("valley", "small", "valley:poet"):
            with pytest.raises(ModelNotFound):
                catalog.get(name, EVERYBODY)
        assert catalog.all() == []
        assert await cards.replace_card("valley", marked, None)
        await cards.put_card("valley", card())
        await until(lambda: catalog.base("valley") == "valley")


async def test_a_removed_model_whose_tokenizer_never_came_is_unknown(cards: Cards) -> None:
    async with following(cards) as catalog:
        await cards.put_card("valley", card())
        await until(lambda: is_waiting(catalog, "valley"))
        await cards.put_card("valley", card(removed=True))
        await until(lambda: not is_waiting(catalog, "valley"))


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "llama3:8b", "模型", "50% off", 256 * "x"])
async def test_a_model_of_any_name_is_known_by_it_and_by_its_aliases(
    cards: Cards, name: str
) -> None:
    await cards.put_tokenizer("t1", BUNDLE)
    await cards.put_card(name, card(model=name, aliases=["gpt-4o", "a/b:c"]))
    async with following(cards) as catalog:
        await until(lambda: bool(catalog.base(name)))
        assert [catalog.get(each, EVERYBODY).name for each in (name, "gpt-4o", "a/b:c")] == 3 * [
            name
        ]
        assert catalog.get(f"{name}:poet", EVERYBODY).name == f"{name}:poet"
        assert catalog.get("a/b:c:poet", EVERYBODY).name == f"{name}:poet"
        with pytest.raises(ModelNotFound, match="has no adapter 'bard'"):
            catalog.get("gpt-4o:bard", EVERYBODY)
        with pytest.raises(ModelNotFound, match="does not exist"):
            catalog.get("\ud800", EVERYBODY)


async def test_a_chat_template_that_cannot_be_read_leaves_its_model_without_chat_alone(
    cards: Cards,
) -> None:
    await cards.put_tokenizer("bad", bundle(byte_level(), "\n{% if %}").SerializeToString())
    await cards.put_card("broken", card(model="broken", tokenizer_digest="bad"))
    async with following(cards) as catalog:
        await until(lambda: bool(catalog.base("broken")))
        tokenizer = catalog.get("broken", EVERYBODY).tokenizer
        assert (tokenizer.chats, tokenizer.template_fault[:7]) == (False, "line 2:")


async def test_a_configured_model_is_expected_until_its_tokenizer_is_here() -> None:
    cards = StaticCards({}, {})
    async with following(cards, "valley,old") as catalog:
        await cards.put_card("valley", card())
        await until(lambda: catalog.loading() == ["valley"])
        assert catalog.unannounced() == {"old": "valley", "valley": "valley"}
        with pytest.raises(NoWorker, match="is loading its tokenizer"):
            catalog.require_none_loading(EVERYBODY)
        await cards.put_tokenizer("t1", BUNDLE)
        await until(lambda: bool(catalog.base("valley")))
        assert catalog.unannounced() == {}
        catalog.require_none_loading(EVERYBODY)
        assert not catalog.base("old")


@pytest.mark.parametrize("broken", [b"\xff\xff", card(tokenizer_digest="bad")])
async def test_a_configured_model_that_cannot_be_read_is_not_being_loaded(broken: bytes) -> None:
    bad = TokenizerBundle(tokenizer_json=b"{}").SerializeToString()
    cards = StaticCards({}, {"bad": bad, "t1": BUNDLE})
    async with following(cards, "valley") as catalog:
        await cards.put_card("valley", broken)
        await until(lambda: list(catalog.unusable()) == ["valley"])
        with pytest.raises(NoWorker, match="valley cannot be served"):
            catalog.get("valley", EVERYBODY)
        await cards.put_card("valley", card())
        await until(lambda: bool(catalog.base("valley")))
        assert catalog.unusable() == {}


async def test_a_configured_model_that_is_removed_is_not_being_loaded() -> None:
    cards = StaticCards({"valley": card(removed=True)}, {})
    async with following(cards, "valley", "delta") as catalog:
        await until(lambda: not is_waiting(catalog, "valley"))
        assert catalog.unannounced() == {"delta": "delta"}
        await cards.put_card("delta", card(model="delta"))
        await until(lambda: catalog.loading() == ["delta"])
        await cards.put_card("delta", card(model="delta", removed=True))
        assert catalog.unannounced() == {}
