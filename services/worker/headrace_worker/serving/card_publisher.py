"""Publishes the model card for gateways and schedulers, and repeats it from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from headrace.bus import BusError, Cards
from headrace.internal.v1.model_card_pb2 import ModelCard

log = logging.getLogger(__name__)

REPUBLISH_S = 600.0
"""A broker may lose its store, and a card may be removed though its worker lives."""


class CardPublisher:
    """A model card, and the tokenizer bundle that it names by digest."""

    def __init__(self, cards: Cards, card: ModelCard, bundle: bytes) -> None:
        self._cards, self.card, self._bundle = cards, card, bundle
        self._changed = asyncio.Event()

    def on_change(self) -> None:
        """Have `repeat` publish now: the card has changed."""
        self._changed.set()

    async def publish(self) -> None:
        """Publish the tokenizer, then the card, which refers to it.

        Raises:
            BusUnavailable: the card is not known to be published.
        """
        await self._cards.put_tokenizer(self.card.tokenizer_digest, self._bundle)
        found = await self._cards.get_card(self.card.model)
        if found is not None and not (before := ModelCard.FromString(found)).removed:
            # Why: the age of a model's first card decides which model gets an alias.
            self.card.create_time.CopyFrom(before.create_time)
        await self._cards.put_card(self.card.model, self.card.SerializeToString())

    async def repeat(self) -> None:
        """Publish repeatedly, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPUBLISH_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.publish()
            except BusError as error:
                log.warning("card.not_published", extra={"why": str(error)})
