"""The models that this gateway serves: their cards from the bus, and their loaded tokenizers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.auth.caller import Caller
from headrace.auth.scopes import ANY_MODEL
from headrace.bus import BusError, Cards
from headrace.errors import ModelNotFound, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard, TokenizerBundle
from headrace.model_names import lane_id, parse_names
from headrace.v1.models_pb2 import Adapter
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.adapters import chosen, known
from headrace_gateway.models.tokenizer import Tokenizer, TokenizerUnusable
from headrace_gateway.request.served_names import SEPARATOR, served_names

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_LOADING_RETRY_S = 2.0
_LATE_S = 253_402_300_799
"""Later than any model is announced, in seconds since 1970."""
_EVERYTHING = Caller()


@dataclass(frozen=True, slots=True)
class ServedModel:
    card: ModelCard
    tokenizer: Tokenizer
    adapter: Adapter | None = None
    """The adapter that its name requests, if any."""

    @property
    def name(self) -> str:
        """Return its primary name, with the adapter's if there is one."""
        if self.adapter is None:
            return self.card.model
        return f"{self.card.model}{SEPARATOR}{self.adapter.name}"


class Models(Protocol):
    """The models that requests can name."""

    def base(self, name: str) -> str:
        """Return the primary name of the model that a name means, without adapter; or ""."""
        ...

    def get(self, name: str, caller: Caller) -> ServedModel:
        """Return the model of this name, with its adapter where it names one.

        Raises:
            ModelNotFound: there is none that the caller may use.
            NoWorker: it cannot be used now.
        """
        ...


class Catalog:
    """Models that are configured. A changed card takes effect once its tokenizer is loaded; one
    that is removed, at once."""

    def __init__(
        self,
        cards: Cards,
        settings: GatewaySettings,
        reported: Callable[[str], Iterable[ModelCard]] = lambda _: (),
        on_version_gone: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            reported: returns the cards of a model's live workers.
            on_version_gone: called with the name of a model whose weights were replaced, or which
                was removed.
        """
        self._source = cards
        self._reported, self._on_version_gone = reported, on_version_gone
        self._inline_characters = settings.inline_text_characters
        self._cards: dict[str, ModelCard] = {}
        """Newest of each model, by lane id, as the next four; also of those not usable yet."""
        self._models: dict[str, ServedModel] = {}
        self._pending: dict[str, bytes] = {}
        """Newest card of each model that is not yet in `_models`."""
        self._unusable: dict[str, str] = {}
        """Why a model's newest card cannot be used, where an older one is not known."""
        self._waiting: set[str] = set()
        """Models of `_pending` that have been tried; logged once."""
        self._tokenizers: dict[str, Tokenizer] = {}
        """By digest; those of `_models` and no others."""
        self._expected = _configured(settings.configured_models)
        """Models of the settings that were never usable yet, by lane id: their names."""
        self._names = served_names(self._expected.values())
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch the cards until cancelled."""
        subscription = await self._source.watch_cards(self._on_card)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._changed.wait()
                self._changed.clear()
                for lane in list(self._pending):
                    if lane in self._pending:
                        await self._adopt(lane)
        finally:
            await subscription.close()

    def base(self, name: str) -> str:
        """Return the primary name of the model that a name means, without adapter; or ""."""
        model, _ = self._names.reading(name) or ("", None)
        return model if lane_id(model) in self._models else ""

    def get(self, name: str, caller: Caller) -> ServedModel:
        """Return the model of this served name or alias, with its adapter where it names one.

        A model that the caller may not use is to this caller one that does not exist.

        Raises:
            ModelNotFound: no such model is configured, or no worker ever announced the adapter.
            NoWorker: as `of_record`.
        """
        if not caller.may_use(ANY_MODEL) and not caller.may_use(*self._names_of(name)):
            raise self._not_found(name, caller)
        return self.of_record(name, caller)

    def of_record(self, name: str, caller: Caller = _EVERYTHING) -> ServedModel:
        """Return the model that a request has, which was checked when the request was made.

        Raises:
            ModelNotFound: as `get`.
            NoWorker: it is, but no worker has announced it yet, or its tokenizer is not loaded
                yet, or no worker could load the adapter.
        """
        model, adapter = self._names.reading(name) or (name, None)
        lane = lane_id(model)
        if (served := self._models.get(lane)) is not None:
            if adapter is None:
                return served
            adapters = self.visible_adapters(served, caller)
            return replace(served, adapter=chosen(model, adapter, adapters))
        if lane in self._pending:
            raise NoWorker(
                f"model {model} has been announced; this gateway is loading its tokenizer",
                retry_after_s=_RETRY_S,
            )
        if lane in self._unusable:
            raise NoWorker(
                f"model {model} cannot be served: {self._unusable[lane]}", retry_after_s=60.0
            )
        if lane in self._expected:
            raise _not_announced(model)
        raise self._not_found(name, caller)

    def visible(self, caller: Caller) -> list[ServedModel]:
        """Return the models that the caller may use, sorted by name."""
        return [served for served in self.all() if self.may_use(served.card.model, caller)]

    def may_use(self, model: str, caller: Caller) -> bool:
        """Return whether the caller may use the model of this name, without adapter."""
        return caller.may_use(ANY_MODEL) or caller.may_use(*self._names_of(model))

    def visible_adapters(self, served: ServedModel, caller: Caller) -> list[Adapter]:
        """Return the adapters of a model that the caller may use, sorted by name."""
        adapters, model = self.adapters(served), served.card.model
        if self.may_use(model, caller):
            return adapters
        named = ((each, self._names_of(f"{model}{SEPARATOR}{each.name}")) for each in adapters)
        return [each for each, names in named if caller.may_use(*names)]

    def _names_of(self, name: str) -> list[str]:
        """Return every name of what this name means; with an adapter, also those of its model."""
        model, adapter = self._names.reading(name) or (name, None)
        lane = lane_id(model)
        card = self._cards.get(lane) or self._expected.get(lane)
        names = [model] if card is None else [model, *self._names.aliases(card)]
        adapted = [f"{each}{SEPARATOR}{adapter}" for each in names] if adapter else []
        return names + adapted

    def _not_found(self, name: str, caller: Caller) -> ModelNotFound:
        models = self._names.models
        known = ", ".join(sorted(each for each in models if self.may_use(each, caller))) or "none"
        # Why these words: clients of OpenAI look for them.
        return ModelNotFound(
            f"The model `{quoted(name)[1:-1]}` does not exist; known models: {known}", field="model"
        )

    def all(self) -> list[ServedModel]:
        """Return every model that can be used, sorted by name."""
        return sorted(self._models.values(), key=lambda served: served.name)

    def loading(self) -> list[str]:
        """Return the models that have been announced, and whose tokenizer is not loaded yet."""
        return [self._cards[lane].model for lane in self._pending if lane not in self._models]

    def unusable(self) -> dict[str, str]:
        """Return why models cannot be served whose cards or tokenizers cannot be read."""
        lanes = self._unusable.keys() - self._models.keys() - self._pending.keys()
        known = self._expected | self._cards
        names = {lane: known[lane].model if lane in known else lane for lane in lanes}
        return {name: self._unusable[lane] for lane, name in names.items()}

    def unannounced(self, caller: Caller = _EVERYTHING) -> dict[str, str]:
        """Return the configured models that were never usable yet, as no worker has announced them
        or their tokenizers are not loaded, and that the caller may use: by each of their names the
        primary one."""
        expected = [card.model for card in self._expected.values()]
        visible = {model for model in expected if self.may_use(model, caller)}
        names = sorted(self._names.models.items())
        return {name: model for name, model in names if model in visible}

    def require_none_loading(self, caller: Caller) -> None:
        """
        Raises:
            NoWorker: a model that the caller may use was never usable yet; it says why.
        """
        loading = [model for model in self.loading() if self.may_use(model, caller)]
        for model in (*loading, *self.unannounced(caller).values()):
            self.of_record(model)

    def adapters(self, served: ServedModel) -> list[Adapter]:
        """Return the adapters of a model, sorted by name."""
        return known(served.card, self._reported(served.card.model))

    def aliases(self, served: ServedModel) -> list[str]:
        """Return the aliases that mean this model."""
        return self._names.aliases(served.card)

    def taken_aliases(self, served: ServedModel) -> list[str]:
        """Return the aliases on its card that mean another model."""
        return sorted(self._names.taken.get(served.card.model, ()))

    def _on_card(self, lane: str, payload: bytes) -> None:
        try:
            card = ModelCard.FromString(payload)
        except DecodeError as error:
            log.error("model.unusable", extra={"lane": lane, "error": str(error)})
            self._unusable[lane] = str(error)
            return
        if not payload or card.removed:
            if card.removed and self._expected.pop(lane, None) is not None:
                self._rename()
            self._drop(lane)
            return
        before, self._cards[lane] = self._cards.get(lane), card
        if before is not None and before.weights_digest != card.weights_digest:
            self._on_version_gone(card.model)
        self._rename()
        self._pending[lane] = payload
        self._changed.set()

    def _drop(self, lane: str) -> None:
        self._waiting.discard(lane)
        for facts in (self._models, self._pending, self._unusable):
            facts.pop(lane, None)
        if (card := self._cards.pop(lane, None)) is not None:
            log.info("model.removed", extra={"model": card.model})
            self._on_version_gone(card.model)
            self._rename()
            self._forget_unused_tokenizers()

    def _rename(self) -> None:
        cards = [*self._cards.values(), *self._expected.values()]
        before, self._names = self._names, served_names(cards)
        for model, taken in self._names.taken.items():
            if taken != before.taken.get(model):
                # In the log, for which of two models answers is seen nowhere else.
                log.warning("model.alias_taken", extra={"model": model, "aliases": taken})

    async def _adopt(self, lane: str) -> None:
        payload, card = self._pending[lane], self._cards[lane]
        model = card.model
        try:
            served = ServedModel(card, await self._tokenizer(card.tokenizer_digest))
        except (BusError, KeyError) as error:
            # Why: the card may overtake its bundle on the way; both are there soon.
            if lane not in self._waiting:
                self._waiting.add(lane)
                log.warning("model.waits", extra={"model": model, "error": repr(error)})
            return
        except (DecodeError, TokenizerUnusable) as error:
            log.error("model.unusable", extra={"model": model, "error": str(error)})
            if lane in self._pending:
                self._unusable[lane] = str(error)
        else:
            if lane in self._pending:  # else it was removed meanwhile
                self._models[lane] = served
                self._unusable.pop(lane, None)
                if self._expected.pop(lane, None) is not None:
                    self._rename()
                log.info("model.ready", extra={"model": model, "weights": card.weights_digest})
            if fault := served.tokenizer.template_fault:
                log.error("model.chat_refused", extra={"model": model, "error": fault})
        self._waiting.discard(lane)
        if self._pending.get(lane) == payload:
            del self._pending[lane]
        self._forget_unused_tokenizers()

    async def _tokenizer(self, digest: str) -> Tokenizer:
        tokenizer = self._tokenizers.get(digest)
        if tokenizer is None:
            bundle = TokenizerBundle.FromString(await self._source.get_tokenizer(digest))
            tokenizer = await asyncio.to_thread(
                Tokenizer, bundle, inline_characters=self._inline_characters
            )
            self._tokenizers[digest] = tokenizer
        return tokenizer

    def _forget_unused_tokenizers(self) -> None:
        used = {served.card.tokenizer_digest for served in self._models.values()}
        for digest in self._tokenizers.keys() - used:
            del self._tokenizers[digest]


def _configured(models: Iterable[str]) -> dict[str, ModelCard]:
    """Return what is known of configured models, their names, by lane id."""
    names = filter(None, map(parse_names, models))
    # Why so late: an alias means the model that was announced first.
    late = Timestamp(seconds=_LATE_S)
    cards = (ModelCard(model=name, aliases=rest, create_time=late) for name, *rest in names)
    return {lane_id(card.model): card for card in cards}


def _not_announced(model: str) -> NoWorker:
    return NoWorker(
        f"model {model} is configured and being loaded: no worker has announced it yet; retry in"
        f" {_LOADING_RETRY_S:g} s",
        retry_after_s=_LOADING_RETRY_S,
    )
