"""Loads a model as a worker does, and what a gateway keeps of it: its card and its tokenizer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_settings import PydanticBaseSettingsSource

from headrace.auth.caller import Caller
from headrace.errors import ModelNotFound
from headrace.internal.v1.model_card_pb2 import TokenizerBundle
from headrace.model_names import name_of_source
from headrace.settings import InvalidSettings
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.loaded_model import LoadedModel
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread
from headrace_worker.serving.load_progress import LoadProgress
from headrace_worker.serving.model_card import configured_card, tokenizer_bundle
from headrace_worker.serving.models import SHIPPED_NAME, load_model

Sources = tuple[PydanticBaseSettingsSource, ...]


class LocalSettings(WorkerSettings):
    """Settings of a worker, from arguments alone: no environment of a mesh changes them."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> Sources:
        return (init_settings,)


NEVER_S = 1e9
"""In place of a time that ends a request."""


class LocalLimits(GatewaySettings):
    """A gateway's bounds of requests, as they are by default; but nothing ends for its time unless
    its caller says so."""

    max_timeout_s: float = NEVER_S
    max_patience_s: float = NEVER_S

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> Sources:
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class OneModel:
    """The gateway's `Models` of a process that has one model, under one name."""

    served: ServedModel

    def base(self, name: str) -> str:
        return name if name == self.served.name else ""

    def get(self, name: str, caller: Caller) -> ServedModel:
        if name != self.served.name:
            raise ModelNotFound(f"model {name!r} is not loaded here", field="model")
        return self.served


def settings_of(name_or_path: str, arguments: dict[str, Any]) -> LocalSettings:
    """Return a worker's settings; those that are None are the worker's defaults.

    Raises:
        InvalidSettings: one is unknown or out of its range.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if unknown := sorted(given.keys() - LocalSettings.model_fields.keys()):
        raise InvalidSettings([f"{name}: no such setting of a worker" for name in unknown])
    is_shipped = name_or_path in ("default", SHIPPED_NAME)
    name = SHIPPED_NAME if is_shipped else name_of_source(name_or_path) or "model"
    try:
        return LocalSettings(**{"model_source": name_or_path, "model_name": name, **given})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [f"{each['loc'][0]}: {each['msg']} (got {each['input']!r})" for each in faults]
        raise InvalidSettings(lines) from error


async def loaded_model(settings: WorkerSettings) -> tuple[LoadedModel, OneModel]:
    """Load a model; a cancelled call ends the load at its next step.

    Raises:
        ModelLoadFailed: with the fact, as a worker logs it.
    """
    progress = LoadProgress(settings.model_source, time.monotonic)
    try:
        return await run_in_dedicated_thread(partial(_load, settings, progress))
    except asyncio.CancelledError:
        progress.abandon()
        raise


def _load(settings: WorkerSettings, progress: LoadProgress) -> tuple[LoadedModel, OneModel]:
    loaded = load_model(settings, progress.report)
    progress.done(loaded.parameters)
    bundle = tokenizer_bundle(loaded.tokenizer)
    card = configured_card(settings, loaded, bundle, now_unix_s=time.time())
    # Why not in a thread of its own for long texts: the loop serves nothing but this model.
    tokenizer = Tokenizer(TokenizerBundle.FromString(bundle), inline_characters=2**62)
    return loaded, OneModel(ServedModel(card, tokenizer))
