"""What every service shares: messages, bus, settings, errors, telemetry, client, CLI; `load`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace_local import LocalModel


def load(
    source: str = "valley",
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    **settings: Any,
) -> LocalModel:
    """Load a model into this process; no mesh is needed.

        model = headrace.load("Qwen/Qwen3-0.6B", device="cuda", dtype="bfloat16")
        print(model.generate("Once upon a time", max_tokens=40).text)

    Args:
        source: a folder of a transformers model, an id of a hub, or "valley", the model that comes
            with Headrace.
        device: "auto", "cpu" or "cuda". Unset: auto.
        dtype: "float32", "bfloat16" or "float16". Unset: float32.
        revision: branch, tag or commit of a hub id.
        settings: further settings of a worker, as `max_slots=8`; docs/configuration.md has them.

    Raises:
        MissingExtra: the worker extra is not installed.
        InvalidSettings: an argument is unknown, or out of its range.
        ModelLoadFailed: of `headrace_local`: with the fact, as a worker logs it.
    """
    from headrace.extras import require_package

    local = require_package("worker", "headrace_local")
    arguments = {"device": device, "dtype": dtype, "model_revision": revision, **settings}
    loaded: LocalModel = local.load(source, arguments)
    return loaded
