"""Removes models: those that a mesh no longer lists, or one by hand.

A removal is a mark on the model's card. From then on gateways answer 404 for the model; its leader
ends the requests that wait in its lanes, and then deletes the card.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from google.protobuf.message import DecodeError

from headrace.bus import Bus, Cards
from headrace.bus.subjects import WORKER_REPORTS
from headrace.errors import ModelNotFound
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import WorkerReport
from headrace.supervisor.state.failures import ModelServed

REPORT_WAIT_S = 3.0
"""A running worker reports at least once in this time."""


async def remove_unlisted(bus: Bus, mesh_id: str, listed: Collection[str]) -> list[str]:
    """Remove the models that this mesh has configured and does not list; return their names.

    Models that a worker serves stay, and those that this mesh has not configured.
    """
    cards = [card for card in await configured_models(bus) if card.configured_by == mesh_id]
    unlisted = [card for card in cards if card.model not in listed]
    if not unlisted:
        return []
    served = await served_models(bus)
    return [
        card.model for card in unlisted if card.model not in served and await _remove(bus, card)
    ]


async def remove_model(bus: Bus, name: str, *, force: bool) -> None:
    """Remove one model.

    Raises:
        ModelNotFound: no model of this name is configured.
        ModelServed: a worker serves it, and `force` is not set.
    """
    cards = await configured_models(bus)
    found = next((card for card in cards if card.model == name), None)
    if found is None:
        owner = next(
            (f"; {name!r} is an alias of {c.model!r}" for c in cards if name in c.aliases), ""
        )
        raise ModelNotFound(f"no model {name!r} is configured{owner}; see headrace model list")
    if not force and name in await served_models(bus):
        raise ModelServed(
            f"a worker serves {name}; stop it first, or use --force, which removes the model until"
            " a worker announces it again"
        )
    await _remove(bus, found)


async def configured_models(cards: Cards) -> list[ModelCard]:
    """Return the cards of all models that are not removed."""
    found: list[ModelCard] = []
    for payload in await cards.all_cards():
        with contextlib.suppress(DecodeError):
            found.append(ModelCard.FromString(payload))
    return [card for card in found if not card.removed]


async def served_models(bus: Bus) -> set[str]:
    """Return the names of the models that workers serve; wait `REPORT_WAIT_S` for their reports."""
    served: dict[str, list[str]] = {}

    def on_report(payload: bytes) -> None:
        with contextlib.suppress(DecodeError):
            report = WorkerReport.FromString(payload)
            models = [] if report.leaving else [each.card.model for each in report.models]
            served[report.worker_id] = models

    subscription = await bus.subscribe(WORKER_REPORTS, on_report)
    await asyncio.sleep(REPORT_WAIT_S)
    await subscription.close()
    return {model for models in served.values() for model in models}


async def _remove(cards: Cards, card: ModelCard) -> bool:
    """Mark the card; return False if a worker has announced the model again meanwhile."""
    before = await cards.get_card(card.model)
    if before is None or ModelCard.FromString(before) != card:
        return False
    card.removed = True
    return await cards.replace_card(card.model, before, card.SerializeToString())
