"""/v1/models: the names that a client may send as `model`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from google.protobuf.empty_pb2 import Empty

from headrace.auth.caller import Caller
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.models_pb2 import GetModelRequest
from headrace_gateway.api.anthropic.models import is_anthropic, model_info, model_page
from headrace_gateway.api.http.endpoint import Lookup
from headrace_gateway.api.http.errors import ANTHROPIC_ERRORS
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.api.openai.model_facts import capabilities, supported_parameters
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.resume.ports import serving

Shape = Callable[..., dict[str, Any]]


def _list_models(services: ApiServices, request: Empty, caller: Caller) -> dict[str, Any]:
    return {"object": "list", "data": _entries(services, caller, _model)}


def _get_model(services: ApiServices, request: GetModelRequest, caller: Caller) -> dict[str, Any]:
    return _entry(services, request, caller, _model)


def _list_infos(services: ApiServices, request: Empty, caller: Caller) -> dict[str, Any]:
    return model_page(_entries(services, caller, model_info))


def _get_info(services: ApiServices, request: GetModelRequest, caller: Caller) -> dict[str, Any]:
    return _entry(services, request, caller, model_info)


def _entry(
    services: ApiServices, request: GetModelRequest, caller: Caller, shape: Shape
) -> dict[str, Any]:
    if (model := services.catalog.unannounced(caller).get(request.model)) is not None:
        return shape(None, request.model, model=model)
    served = services.catalog.get(request.model, caller)
    if served.adapter is not None:
        return shape(served, served.name, ready=served.adapter.workers > 0)
    ready = serving(services.fleet)[served.card.model] > 0
    return shape(served, request.model, ready=ready)


def _entries(services: ApiServices, caller: Caller, shape: Shape) -> list[dict[str, Any]]:
    """Return an entry for each name that this caller may send as `model`."""
    workers = serving(services.fleet)
    names = [
        each
        for served in services.catalog.all()
        for each in _names(services, served, workers, caller)
    ]
    # Why: a client that picks the first should get an answer soon.
    names.sort(key=lambda each: not each[2])
    loading = services.catalog.unannounced(caller).items()
    return [
        *(shape(served, name, ready=ready) for served, name, ready in names),
        *(shape(None, name, model=model) for name, model in loading),
    ]


def _names(
    services: ApiServices, served: ServedModel, workers: Counter[str], caller: Caller
) -> Iterator[tuple[ServedModel, str, bool]]:
    """Yield each name of this model that the caller may send, and whether a worker serves it."""
    if services.catalog.may_use(served.card.model, caller):
        ready = workers[served.card.model] > 0
        for name in (served.name, *services.catalog.aliases(served)):
            yield served, name, ready
    for adapter in services.catalog.visible_adapters(served, caller):
        if adapter.digest:
            adapted = replace(served, adapter=adapter)
            yield adapted, adapted.name, adapter.workers > 0


def _model(
    served: ServedModel | None, name: str, *, ready: bool = False, model: str = ""
) -> dict[str, Any]:
    """Return a model's entry; `model`: the primary name of one that no worker has announced."""
    card = ModelCard(model=model) if served is None else served.card
    chats = served is not None and served.tokenizer.chats
    known = served is not None
    entry = {
        "id": name,
        "object": "model",
        "created": card.create_time.seconds,
        "owned_by": "headrace",
        # vLLM's fields, which some clients read; `parent`, of adapters, as well.
        "max_model_len": card.context_tokens if known else None,
        "root": card.model,
        # OpenRouter's, which others read, and Ollama's.
        "context_length": card.context_tokens if known else None,
        "supported_parameters": supported_parameters(card, chats=chats) if known else None,
        "capabilities": capabilities(card, chats=chats) if known else None,
        # Ours: whether a worker serves it now. Else its requests wait.
        "ready": ready,
    }
    is_adapter = served is not None and served.adapter is not None
    return entry | {"parent": card.model} if is_adapter else entry


LIST, GET = Lookup(_list_models), Lookup(_get_model)
ANTHROPIC_LIST = Lookup(_list_infos, ANTHROPIC_ERRORS, is_anthropic)
ANTHROPIC_GET = Lookup(_get_info, ANTHROPIC_ERRORS, is_anthropic)
