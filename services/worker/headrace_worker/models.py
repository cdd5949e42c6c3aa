"""From settings to a loaded model, whichever engine runs it."""

from __future__ import annotations

import logging
from pathlib import Path

from headrace_worker.engine.loaded import LoadedModel
from headrace_worker.engine.scripted import ScriptedSettings, load_scripted
from headrace_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

DEFAULT_MODEL = Path(__file__).parent / "default_model"
SCRIPTED_SLOTS = 256


def load_model(settings: WorkerSettings) -> LoadedModel:
    """Load what the settings name; blocks for as long as that takes.

    Raises:
        ModelLoadFailed: with the fact.
    """
    if settings.engine == "scripted":
        return load_scripted(
            ScriptedSettings(
                step_s=settings.scripted_step_s,
                max_slots=settings.max_slots or SCRIPTED_SLOTS,
                context_tokens=settings.context_tokens or ScriptedSettings().context_tokens,
            )
        )
    # Why here: torch takes a second to import, and the scripted engine never needs it.
    from headrace_worker.engine.loading import load

    source = str(DEFAULT_MODEL) if settings.model_source == "default" else settings.model_source
    return load(
        source,
        revision=settings.model_revision,
        dtype=settings.dtype,
        threads=settings.threads,
        max_slots=settings.max_slots,
        context_tokens=settings.context_tokens,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        prefix_cache=settings.prefix_cache,
    )
