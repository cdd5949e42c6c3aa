"""The models this gateway knows: their cards from the bus, their tokenizers ready to use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from headrace.bus import BusError, Cards
from headrace.errors import ModelNotFound, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard, TokenizerBundle
from headrace_gateway.adapters import SEPARATOR, Adapter, chosen, known, split
from headrace_gateway.limits import Limits
from headrace_gateway.quoting import quoted
from headrace_gateway.tokenizer import Tokenizer, TokenizerUnusable

log = logging.getLogger(__name__)

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    card: ModelCard
    tokenizer: Tokenizer
    adapter: Adapter | None = None
    """What it was asked for with."""

    @property
    def name(self) -> str:
        """As callers ask for it."""
        if self.adapter is None:
            return self.card.model
        return f"{self.card.model}{SEPARATOR}{self.adapter.name}"


class Catalog:
    """Models by served name. A changed card takes effect once its tokenizer is loaded."""

    def __init__(
        self,
        cards: Cards,
        limits: Limits,
        reported: Callable[[str], Iterable[ModelCard]] = lambda _: (),
    ) -> None:
        """`reported` gives the cards of a model's live workers."""
        self._cards = cards
        self._reported = reported
        self._inline_characters = limits.inline_text_characters
        self._models: dict[str, ServedModel] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        """By digest; those of `_models` and no others."""
        self._pending: dict[str, bytes] = {}
        """Newest card of each model that is not yet in `_models`."""
        self._unusable: dict[str, str] = {}
        """Why a model's newest card cannot be used, where an older one is not known."""
        self._waiting: set[str] = set()
        """Models of `_pending` that have been tried; said once in the log."""
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the cards until cancelled."""
        subscription = await self._cards.watch_cards(self._on_card)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._changed.wait()
                self._changed.clear()
                for model in list(self._pending):
                    await self._adopt(model)
        finally:
            await subscription.close()

    def base(self, name: str) -> str:
        """The model's own name, whatever adapter is asked for; empty where there is none."""
        model, _ = split(name)
        return model if model in self._models else ""

    def get(self, name: str) -> ServedModel:
        """The model of this served name, with its adapter where it names one.

        Raises:
            ModelNotFound: no worker ever announced it, or the adapter.
            NoWorker: one did, but its tokenizer is not here yet, or no worker could load
                the adapter.
        """
        model, adapter = split(name)
        served = self._models.get(model)
        if served is not None:
            if SEPARATOR not in name:
                return served
            return replace(served, adapter=chosen(model, adapter, self.adapters(served)))
        if model in self._pending:
            raise NoWorker(
                f"model {model} has been announced; this gateway is loading its tokenizer",
                retry_after_s=_RETRY_S,
            )
        if model in self._unusable:
            raise NoWorker(
                f"model {model} cannot be served: {self._unusable[model]}", retry_after_s=60.0
            )
        known = ", ".join(sorted(self._models)) or "none"
        # Why these words: clients of OpenAI look for them.
        raise ModelNotFound(
            f"The model `{quoted(name)[1:-1]}` does not exist; known models: {known}", field="model"
        )

    def all(self) -> list[ServedModel]:
        """Every model that can be used, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def loading(self) -> list[str]:
        """Models that have been announced, and whose tokenizer is not here yet."""
        return [name for name in list(self._pending) if name not in self._models]

    def adapters(self, served: ServedModel) -> list[Adapter]:
        """What a model can be asked for with, by name."""
        return known(served.card, self._reported(served.card.model))

    def _on_card(self, model: str, payload: bytes) -> None:
        self._pending[model] = payload
        self._changed.set()

    async def _adopt(self, model: str) -> None:
        payload = self._pending[model]
        try:
            card = ModelCard.FromString(payload)
            served = ServedModel(card, await self._tokenizer(card.tokenizer_digest))
        except (BusError, KeyError) as error:
            # Why: the card may overtake its bundle on the way; both are there soon.
            if model not in self._waiting:
                self._waiting.add(model)
                log.warning("model.waits", extra={"model": model, "error": repr(error)})
            return
        except (DecodeError, TokenizerUnusable) as error:
            log.error("model.unusable", extra={"model": model, "error": str(error)})
            self._unusable[model] = str(error)
        else:
            self._models[model] = served
            self._unusable.pop(model, None)
            log.info("model.ready", extra={"model": model, "weights": card.weights_digest})
            if fault := served.tokenizer.template_fault:
                log.error("model.chat_refused", extra={"model": model, "error": fault})
        self._waiting.discard(model)
        if self._pending[model] == payload:
            del self._pending[model]
        self._forget_unused_tokenizers()

    async def _tokenizer(self, digest: str) -> Tokenizer:
        tokenizer = self._tokenizers.get(digest)
        if tokenizer is None:
            bundle = TokenizerBundle.FromString(await self._cards.get_tokenizer(digest))
            tokenizer = await asyncio.to_thread(
                Tokenizer, bundle, inline_characters=self._inline_characters
            )
            self._tokenizers[digest] = tokenizer
        return tokenizer

    def _forget_unused_tokenizers(self) -> None:
        used = {served.card.tokenizer_digest for served in self._models.values()}
        for digest in self._tokenizers.keys() - used:
            del self._tokenizers[digest]
