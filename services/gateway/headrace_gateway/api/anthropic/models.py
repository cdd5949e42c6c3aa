"""Pure: a model in the shape of Anthropic's /v1/models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace_gateway.models.catalog import ServedModel

VERSION_HEADER = "anthropic-version"


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether a client of Anthropic's API made the call: those send this header always."""
    return VERSION_HEADER in headers


def model_info(served: ServedModel, name: str, *, ready: bool) -> dict[str, Any]:
    card = served.card
    created = datetime.fromtimestamp(card.create_time.seconds, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        # Prompt and output share the context.
        "max_input_tokens": card.context_tokens,
        "max_tokens": card.context_tokens,
    }


def model_page(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all models as the only page."""
    ids = [entry["id"] for entry in entries] or [None]
    return {"data": entries, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
