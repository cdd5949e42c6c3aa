"""Pure: which model a name means, where models have several names each.

>>> cards = [ModelCard(model="a", aliases=["gpt-4o", "b"]), ModelCard(model="b")]
>>> names = served_names(cards)
>>> names.models, names.taken
({'a': 'a', 'b': 'b', 'gpt-4o': 'a'}, {'a': {'b': 'b'}})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.internal.v1.model_card_pb2 import ModelCard

SEPARATOR = ":"
"""Between a model and its adapter in a served name."""


@dataclass(frozen=True, slots=True)
class ServedNames:
    models: dict[str, str] = field(default_factory=dict)
    """The primary name of the model that each name means."""
    taken: dict[str, dict[str, str]] = field(default_factory=dict)
    """By model: aliases that it does not get, and the model that each of them means."""

    def aliases(self, card: ModelCard) -> list[str]:
        """Return the aliases that mean this model."""
        means = (alias for alias in card.aliases if self.models.get(alias) == card.model)
        return [alias for alias in means if alias != card.model]

    def reading(self, name: str) -> tuple[str, str | None] | None:
        """Return the model that a name means, and the adapter that it names or None; None if it
        means no model.

        A name that is served in full is meant first. Names of adapters have no colon, so the last
        one of the name is the only place where it may be divided:

            >>> served_names([ModelCard(model="llama3:8b")]).reading("llama3:8b:poet")
            ('llama3:8b', 'poet')
        """
        if name in self.models:
            return self.models[name], None
        model, colon, adapter = name.rpartition(SEPARATOR)
        return (self.models[model], adapter) if colon and model in self.models else None


def served_names(cards: Iterable[ModelCard]) -> ServedNames:
    """A primary name means its own model. An alias means the model that was announced first."""
    oldest_first = sorted(cards, key=lambda c: (c.create_time.ToNanoseconds(), c.model))
    names = ServedNames({card.model: card.model for card in oldest_first})
    for card in oldest_first:
        for alias in card.aliases:
            owner = names.models.setdefault(alias, card.model)
            if owner != card.model:
                names.taken.setdefault(card.model, {})[alias] = owner
    return names
