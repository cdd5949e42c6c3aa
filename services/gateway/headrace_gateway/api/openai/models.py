"""/v1/models: the names that a client may send as `model`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from google.protobuf.empty_pb2 import Empty

from headrace.auth.caller import Caller
from headrace.v1.models_pb2 import GetModelRequest
from headrace_gateway.api.http.services import ApiServices
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.resume.ports import serving


def list_models(services: ApiServices, request: Empty, caller: Caller) -> dict[str, Any]:
    workers = serving(services.fleet)
    entries = [
        entry
        for served in services.catalog.all()
        for entry in _entries(services, served, workers, caller)
    ]
    # Why: a client that picks the first should get an answer soon.
    entries.sort(key=lambda entry: not entry["ready"])
    return {"object": "list", "data": entries}


def get_model(services: ApiServices, request: GetModelRequest, caller: Caller) -> dict[str, Any]:
    served = services.catalog.get(request.model, caller)
    if served.adapter is not None:
        return _model(served, served.name, ready=served.adapter.workers > 0)
    ready = serving(services.fleet)[served.card.model] > 0
    return _model(served, request.model, ready=ready)


def _entries(
    services: ApiServices, served: ServedModel, workers: Counter[str], caller: Caller
) -> Iterator[dict[str, Any]]:
    """Yield an entry for each name that this caller may send for this model."""
    if services.catalog.may_use(served.card.model, caller):
        ready = workers[served.card.model] > 0
        for name in (served.name, *services.catalog.aliases(served)):
            yield _model(served, name, ready=ready)
    for adapter in services.catalog.visible_adapters(served, caller):
        if adapter.digest:
            adapted = replace(served, adapter=adapter)
            yield _model(adapted, adapted.name, ready=adapter.workers > 0)


def _model(served: ServedModel, name: str, *, ready: bool) -> dict[str, Any]:
    card = served.card
    model = {
        "id": name,
        "object": "model",
        "created": card.create_time.seconds,
        "owned_by": "headrace",
        # vLLM's fields, which some clients read; `parent`, of adapters, as well.
        "max_model_len": card.context_tokens,
        "root": card.model,
        # Ours: whether a worker serves it now. Else its requests wait.
        "ready": ready,
    }
    return model if served.adapter is None else model | {"parent": card.model}
