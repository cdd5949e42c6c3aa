"""Pure: the LoRA adapters of a model, from the cards of its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headrace.errors import ModelNotFound, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.models_pb2 import Adapter
from headrace_gateway.base.quoting import quoted

_UNUSABLE_RETRY_S = 60.0


def known(announced: ModelCard, reported: Iterable[ModelCard]) -> list[Adapter]:
    """Return the adapters of a model by name, from its last card and those of live workers.

    Where workers differ in the files of one adapter, as while it is replaced, those of most
    workers count. An announced adapter that no worker runs now is known: its worker may return.
    """
    reported = list(reported)
    digests: dict[str, Counter[str]] = {}
    failures: dict[str, str] = {}
    for card in (announced, *reported):
        for each in card.adapters:
            digests.setdefault(each.name, Counter())[each.digest] += card is not announced
            if each.failure:
                failures[each.name] = each.failure
    return [_adapter(name, digests[name], failures.get(name, "")) for name in sorted(digests)]


def _adapter(name: str, digests: Counter[str], failure: str) -> Adapter:
    digest = max((d for d in digests if d), key=lambda d: (digests[d], d), default="")
    workers = digests[digest] if digest else 0
    return Adapter(name=name, digest=digest, workers=workers, failure=failure)


def chosen(model: str, name: str, adapters: Iterable[Adapter]) -> Adapter:
    """Return the adapter of this name.

    Raises:
        ModelNotFound: no worker has announced it.
        NoWorker: it was announced, and no worker could load it.
    """
    by_name = {each.name: each for each in adapters}
    found = by_name.get(name)
    if found is None:
        names = ", ".join(by_name) or "none"
        fact = f"model {model} has no adapter {quoted(name)}; its adapters: {names}"
        raise ModelNotFound(fact, field="model")
    if not found.digest:
        fact = f"adapter {name} of model {model} cannot be served: {found.failure}"
        raise NoWorker(fact, retry_after_s=_UNUSABLE_RETRY_S)
    return found
