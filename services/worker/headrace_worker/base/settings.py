"""Settings of a worker, HEADRACE_WORKER_*."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from headrace.model_names import invalid_reason, parse_names
from headrace.output_parsers.names import ALIASES, AUTO, NONE, REASONING_PARSERS, TOOL_PARSERS
from headrace.rpc.delivery_secret import DeliverySettings
from headrace.settings import InvalidSettings


def _checked_name(name: object) -> object:
    # Why: on the command line and in the environment, "none" is no text but the absence of one.
    name = "none" if name is None else name
    if isinstance(name, str) and (why := invalid_reason(name)) is not None:
        raise ValueError(f"no model can have this name: {why}")
    return name


def _checked_names(names: object) -> object:
    names = "none" if names is None else names
    if isinstance(names, str):
        for name in parse_names(names):
            _checked_name(name)
    return names


def _known_parser(names: Iterable[str]) -> Callable[[object], object]:
    def checked(name: object) -> object:
        known = (AUTO, NONE, *names)
        if isinstance(name, str) and ALIASES.get(name, name) not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        return ALIASES.get(name, name) if isinstance(name, str) else name

    return checked


def _template_variables(text: object) -> object:
    if isinstance(text, str) and text:
        try:
            is_object = isinstance(json.loads(text), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise ValueError("it is no JSON object")
    return text


ToolParser = Annotated[str, BeforeValidator(_known_parser(TOOL_PARSERS))]
ReasoningParser = Annotated[str, BeforeValidator(_known_parser(REASONING_PARSERS))]
TemplateVariables = Annotated[str, BeforeValidator(_template_variables)]
ModelName = Annotated[str, BeforeValidator(_checked_name)]
ModelNames = Annotated[str, BeforeValidator(_checked_names)]

_OF_THE_MODEL = frozenset(
    {
        *("model_source", "model_revision", "dtype", "quantization", "threads", "max_slots"),
        *("context_tokens", "prefill_chunk_tokens", "prefix_cache", "workers_here"),
        *("grammar_backend", "tool_parser", "reasoning_parser"),
        *("default_chat_template_kwargs", "model_aliases"),
    }
)
"""What a reload takes up; the rest belongs to the process."""


class WorkerSettings(DeliverySettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_WORKER_")

    model_source: str = "default"
    """What to serve: a folder of a transformers model, a hub id, or "default", the model that
    comes with Headrace; "valley", its name, means it as well where no folder is called so. For
    llama-cpp a GGUF file; for openai a URL, such as http://host:8000/v1."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. Unset: the hub's default; pin it in production."""
    model_name: ModelName = "valley"
    """Served name: any printable text of at most 256 characters, such as Qwen/Qwen3-0.6B. Answers
    carry it, and the workers of one name serve one model."""
    model_aliases: ModelNames = ""
    """Other names that the model is served under, with commas between: gpt-4o-mini,small. The
    newest worker of a model decides. A name that another model has already goes on to mean that."""
    configured_by: str = ""
    """Id of the mesh that `headrace up` made, which removes the model once it lists it no more.
    Unset: it stays configured without a worker until `headrace model remove`."""
    engine: Literal["transformers", "llama-cpp", "vllm", "openai", "scripted"] = "transformers"
    """Which engine computes: our own over transformers models; llama.cpp and vLLM (extras of these
    names); `openai`, any server with OpenAI's API; `scripted`, text from the prompt alone, without
    weights or torch."""
    task: Literal["auto", "generate", "embed", "score", "classify"] = "auto"
    """What a model of our own engine is for. auto: by its files; a sentence-transformers pooling
    module or an architecture "...Model" embeds, "...ForSequenceClassification" scores where it has
    one label and classifies where it has several, others generate."""
    encoder_pass_tokens: int = Field(1024, ge=1)
    """Tokens of a forward pass of a model that embeds, scores or classifies, padding included. Too
    small: short inputs are computed almost one by one. Too large: the next request waits for the
    pass."""
    model_tokenizer: str | None = None
    """Folder or hub id of a tokenizer. openai needs it; llama-cpp makes one of what the GGUF file
    has, unless this names a better one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """float32 alone promises equal output whatever the neighbours; bfloat16 halves the memory and
    is fast where the CPU has AVX512-BF16 or AMX; float16 needs a GPU. With llama-cpp it is the
    cache's, 16 bits where it is not float32."""
    quantization: Literal["none", "int8"] = "none"
    """int8 stores the weights of linear layers in a quarter of float32's memory, at some error and
    without float32's promise; needs `pip install 'headrace[int8]'`."""
    threads: int | None = Field(None, ge=1)
    """Threads of the forward pass. Unset: this worker's share of the cores that it may use, less
    one for the rest of the mesh, and no more than its model keeps busy. More than that makes it
    slower, not faster: each waits for the others, wherever these wait for a core."""
    workers_here: int = Field(1, ge=1)
    """Workers that share this machine's cores; `headrace up` says how many it starts."""
    max_slots: int | None = Field(None, ge=1, le=4096)
    """Sequences held at once. Unset: 64, or 8 where each must run alone, if memory takes them.
    Too small: requests wait while the machine could batch them. Too large: memory for the cache,
    and every sequence gets its tokens more slowly."""
    context_tokens: int | None = Field(None, ge=16)
    """Prompt and output together. Unset: the model's own; in strips at most 4096, in pages what
    they take. Too small: long conversations are refused. Too large, in strips: fewer slots, for
    each has room for all of it."""
    prefill_chunk_tokens: int | None = Field(None, ge=1)
    """Prompt tokens per step. Unset: what this model's size and threads compute in a quarter of a
    second, from 16 to 256; on a GPU 2048. Too small: long prompts start late. Too large: running
    streams stall for the length of a chunk."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto`: on a GPU that torch finds, else on the CPU."""
    tensor_parallel: bool = False
    """One model over several GPUs: `torchrun --nproc-per-node 2 -m headrace_worker
    --tensor-parallel true …` starts a process for each, with a part of every matrix; the first
    serves. No adapters, and decode steps are not launched ahead."""
    kv_store: Literal["auto", "strips", "pages"] = "auto"
    """Where keys and values are kept. `strips`: each slot has contiguous memory for a whole
    context, fast to read on a CPU. `pages`: slots get blocks of 16 tokens as they grow, and common
    prefixes are kept once; when all are in use, the newest of the least urgent requests is parked
    and resumed later. `auto`: strips on a CPU, pages on a GPU."""
    memory_utilization: float | None = Field(None, gt=0, le=1)
    """Share of the machine's memory (of its container's limit, of the GPU's memory) that weights
    and cache may take together. Unset: 0.5, on a GPU 0.9. Too small: fewer slots, or a shorter
    context. Too large: on a CPU, processes are killed for want of memory; on a GPU, large steps
    fail."""
    cache_tokens: int | None = Field(None, ge=16)
    """Tokens that the pages hold at most, of all requests together. Unset: as many as
    `memory_utilization` leaves room for. Too small: requests are parked for each other, and
    computed again."""
    prefix_cache: bool = True
    """Common prefixes of contexts, as the turns of a conversation have, are computed once. Costs no
    memory: a slot keeps its contents until another request needs it. If tenants that must not learn
    of each other share a worker, the time to the first token can tell one what another sent; off,
    it cannot."""
    prefix_report_blocks: int = Field(4096, ge=0, le=65536)
    """Most blocks of 16 tokens that are reported to schedulers, so that requests with the same
    prefix are routed here; 0: none. Too small: only a part of a large cache attracts requests. Too
    large: each takes some 200 bytes of the leader, and work with every change."""
    tool_parser: ToolParser = "auto"
    """How the model writes tool calls: `none`, or a name that docs/parsers.md lists, mostly vLLM's;
    `auto` finds it in the chat template. Wrong: calls stay text, and forced ones are written in a
    form that the model does not know."""
    reasoning_parser: ReasoningParser = "auto"
    """How the model writes its reasoning, likewise. Wrong: reasoning stays in the answer's text,
    and structured output begins before it."""
    default_chat_template_kwargs: TemplateVariables = ""
    """Variables of the chat template where a request sets none, as a JSON object:
    `{"enable_thinking": false}`. Wrong: the template decides by itself, or prints what it should
    not."""
    grammar_backend: Literal["xgrammar", "llguidance"] = "xgrammar"
    """Library that enforces schemas, regular expressions and grammars. xgrammar is faster per
    token; llguidance (`pip install 'headrace[llguidance]'`) compiles faster. The workers of one
    model need the same, or a request may fail where it is resumed."""
    adapters_dir: Path | None = None
    """Folder whose subfolders are LoRA adapters as peft saves them, each served as
    `<model>:<subfolder>`. New ones are loaded, removed ones are unloaded once nothing runs with
    them. Unset: none."""
    adapters_scan_s: float = Field(5.0, gt=0)
    """Interval at which that folder is scanned. Too small: work for a slow file system. Too large:
    a new adapter is served late."""
    max_adapters: int = Field(16, ge=1, le=1024)
    """Adapters held at once; one more is refused. Each takes memory, and a place in every report
    of this worker."""
    max_adapter_rank: int = Field(64, ge=1, le=1024)
    """An adapter of a higher rank is refused. Rows of different adapters go through all of their
    ranks: large ones slow every sequence that has an adapter."""
    scripted_step_s: float = Field(0.0, ge=0)
    """Time per step of the scripted engine."""
    scripted_fail_token: int | None = Field(None, ge=0)
    """The scripted engine cannot compute a prompt with this token; to test recovery."""
    scripted_crash_token: int | None = Field(None, ge=0)
    """A prompt with this token kills the process of the scripted engine; for the same."""

    upstream_model: str | None = None
    """With openai, the model's name there. Unset: `model_name`."""
    upstream_speaks: Literal["token_ids", "text", "chat"] = "token_ids"
    """With openai, the protocol. `token_ids` (vLLM, Headrace) is exact, and answers survive their
    worker. `text` (completions) and `chat` (chat completions) are for other servers: an answer that
    has begun ends with its worker, and tokens are counted by `model_tokenizer`."""
    upstream_api_key: SecretStr | None = None
    """With openai, its key; never logged. Better by environment or file than as a flag, which
    other users of the machine see."""
    upstream_api_key_file: Path | None = None
    """File that has the key, as secrets are mounted; read once, at the start."""
    upstream_timeout_s: float = Field(60.0, gt=0)
    """Longest silence of the upstream, also before the first token. Too small: long prompts fail.
    Too large: a dead upstream holds its callers."""
    upstream_retries: int = Field(2, ge=0, le=10)
    """Retries, with growing pauses or Retry-After between them, of requests that failed before
    their first event. Too small: every short failure costs an attempt. Too large: callers wait for
    a server that is down."""
    upstream_failures: int = Field(5, ge=1)
    """Failures in a row that open the circuit breaker: this worker then takes no requests, and
    other workers of the model do. Too small: one bad minute costs the worker. Too large: so many
    requests fail first."""
    upstream_pause_s: float = Field(5.0, gt=0)
    """Between probes while the circuit breaker is open. Too large: the upstream is back, and
    unused."""

    report_interval_s: float = Field(0.5, gt=0, le=2)
    """Interval of the full reports to schedulers. Too small: load on the bus. Too large: a dead
    worker is noticed late; schedulers give it up after three seconds of silence."""
    step_stall_s: float = Field(8.0, gt=0)
    """Time in one step after which the engine counts as stalled: the worker offers no slots and is
    not ready until the step returns. After four times as long its requests are resumed elsewhere,
    which counts as a failure of theirs; after twelve times the process ends, to be restarted. Too
    small: a slow machine's long steps count as stalls. Too large: streams hang for longer."""
    drain_s: float = Field(20.0, ge=0)
    """After SIGTERM, time for running requests to finish here before they are parked and resumed
    elsewhere. Too large: slow roll-outs. Too small: prompts are computed twice."""
    orphan_grace_s: float = Field(5.0, ge=0)
    """How long a gateway may be unreachable before its requests are parked. Too small: a short
    network failure costs a prefill. Too large: slots compute output that has no reader."""

    def with_model_of(self, other: WorkerSettings) -> WorkerSettings:
        """These, but with the model of others and how it is run.

        Raises:
            InvalidSettings: they differ in more, which takes a new process.
        """
        names = (name for name in type(self).model_fields if name not in _OF_THE_MODEL)
        changed = [name for name in names if getattr(self, name) != getattr(other, name)]
        if changed:
            raise InvalidSettings([f"{name} changes with a restart only" for name in changed])
        return self.model_copy(update={name: getattr(other, name) for name in _OF_THE_MODEL})
