"""Pure: a model in the shape of Anthropic's /v1/models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.models.catalog import ServedModel

VERSION_HEADER = "anthropic-version"


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether a client of Anthropic's API made the call: those send this header always."""
    return VERSION_HEADER in headers


def model_info(
    served: ServedModel | None, name: str, *, ready: bool = False, model: str = ""
) -> dict[str, Any]:
    """Return a model's entry; `served` is None while no worker has announced the model."""
    card = ModelCard() if served is None else served.card
    context = card.context_tokens or None
    created = datetime.fromtimestamp(card.create_time.seconds, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        # Prompt and output share the context.
        "max_input_tokens": context,
        "max_tokens": context,
        "capabilities": None if served is None else _capabilities(served),
        # Ours: whether a worker serves it now.
        "ready": ready,
    }


def _capabilities(served: ServedModel) -> dict[str, Any]:
    """Return Anthropic's table of what a model can do."""
    card, no = served.card, _supported(False)
    thinks = served.tokenizer.chats and bool(card.reasoning_parser)
    # Why all: no model refuses one; one that does not think passes over them.
    types = ("adaptive", "between_tools", "disabled", "enabled")
    efforts = ("low", "medium", "high", "xhigh", "max")
    return {
        **dict.fromkeys(("batch", "citations", "code_execution", "image_input", "pdf_input"), no),
        "context_management": no,
        "effort": _supported(thinks) | dict.fromkeys(efforts, _supported(thinks)),
        "server_tools": no | {"code_execution": no, "web_search": no},
        "structured_outputs": _supported(card.capabilities.grammar),
        "thinking": _supported(thinks) | {"types": dict.fromkeys(types, _supported(True))},
    }


def _supported(is_supported: bool) -> dict[str, Any]:
    return {"supported": is_supported}


def model_page(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all models as the only page."""
    ids = [entry["id"] for entry in entries] or [None]
    return {"data": entries, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
