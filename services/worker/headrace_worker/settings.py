"""Settings of a worker, HEADRACE_WORKER_*."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.settings import ServiceSettings


class WorkerSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_WORKER_")

    model_source: str = "default"
    """What to serve: a folder of a transformers model, a hub id, or "default", the model that
    comes with Headrace."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. Unset: the hub's default; pin it in production."""
    model_name: str = Field("valley", pattern=r"^[a-z0-9-]{1,63}$")
    """Served name."""
    engine: Literal["transformers", "scripted"] = "transformers"
    """`scripted` computes text from the prompt alone, without weights or torch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """float32 alone promises equal output whatever the neighbours; bfloat16 halves the memory."""
    threads: int | None = Field(None, ge=1)
    """Threads of the forward pass. Unset: half the cores. More than this process's share of the
    cores makes it slower, not faster: they spin while they wait for each other."""
    max_slots: int | None = Field(None, ge=1, le=4096)
    """Sequences held at once. Unset: 64, or 8 where each must run alone, if memory takes them.
    Too small: requests wait while the machine could batch them. Too large: memory for the cache,
    and every sequence gets its tokens more slowly."""
    context_tokens: int | None = Field(None, ge=16)
    """Prompt and output together. Unset: the model's own, but at most 4096. Too small: long
    conversations are refused. Too large: fewer slots, for each has room for all of it."""
    prefill_chunk_tokens: int = Field(128, ge=1)
    """Prompt tokens per step. Too small: long prompts start late. Too large: running streams
    stall for the length of a chunk."""
    prefix_cache: bool = True
    """Contexts that begin alike, as the turns of a conversation do, are computed once. Costs no
    memory: a slot keeps what it held until another request needs it. Where strangers share a
    worker, how soon a first token comes can tell one of them what another asked; off, it cannot."""
    scripted_step_s: float = Field(0.0, ge=0)
    """Time per step of the scripted engine."""

    report_interval_s: float = Field(0.5, gt=0, le=2)
    """Beat of the worker's reports. Too small: load on the bus. Too large: a dead worker is
    noticed late; schedulers give up after three seconds of silence."""
    drain_s: float = Field(20.0, ge=0)
    """After SIGTERM, time for running requests to finish here before they are parked and go on
    elsewhere. Too large: slow roll-outs. Too small: prompts are computed twice."""
    orphan_grace_s: float = Field(5.0, ge=0)
    """How long a gateway may be out of reach before its requests are parked. Too small: a
    network blip costs a prefill. Too large: slots work for nobody."""
