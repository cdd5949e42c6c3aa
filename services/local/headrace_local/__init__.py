"""A model in this process, without a mesh: `headrace.load`.

    import headrace

    with headrace.load("valley") as model:
        print(model.generate("Once upon a time", max_tokens=40, seed=1).text)
        for piece in model.chat_stream("Who are you?"):
            print(piece.text, end="")

It is the engine of a worker behind the prompts, checks and parsers of a gateway, so that it answers
as a mesh does. Nothing listens, and no broker is needed: `pip install 'headrace[worker]'`.
"""

from __future__ import annotations

from typing import Any

from headrace.extras import require
from headrace_local.loading import settings_of
from headrace_local.model import LocalModel
from headrace_worker.engine.base.loaded_model import ModelLoadFailed

__all__ = ["LocalModel", "ModelLoadFailed", "load"]


def load(source: str, arguments: dict[str, Any]) -> LocalModel:
    """As `headrace.load`, with the settings that are not None.

    Raises:
        InvalidSettings: one is unknown, or out of its range.
        MissingExtra: a package is not installed here.
        ModelLoadFailed: with the fact, as a worker logs it.
    """
    settings = settings_of(source, arguments)
    if settings.engine == "transformers":
        require("worker", "torch")
    return LocalModel(settings)
