"""GGUF models, computed by llama.cpp in this process.

Its server streams only over HTTP, so it listens on the loopback address, at a random port and with
a random key.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from headrace.sampling import names_in
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.backends.remote_engine import (
    RemoteEngine,
    TokenChunk,
    seed_of,
    tokens_left,
)
from headrace_worker.engine.backends.upstream import Upstream, UpstreamSettings
from headrace_worker.engine.base.interface import Capabilities, EngineFacts, FinishReason, Sequence
from headrace_worker.engine.base.loaded_model import (
    LoadedModel,
    ModelLoadFailed,
    PackageMissing,
    TokenizerFiles,
)
from headrace_worker.engine.files.tokenizer_files import tokenizer_files

_SLOTS = 8
_CONTEXT_TOKENS = 4096
_BLOCK = 8
"""Tokens of a request that is not streamed. Too small: many requests. Too large: tokens come in
bursts."""
_FINISHES = {"eos": FinishReason.STOP, "limit": FinishReason.LENGTH}
_QUIET = -1
_ORDER = ("penalties", "temperature", "top_k", "top_p", "min_p", "typ_p")
"""As in transformers, and so in our own engines."""


class LlamaCppBackend:
    """The server's native endpoint, with token ids in and out."""

    def __init__(self, server: object, upstream: Upstream) -> None:
        self._server, self._upstream = server, upstream

    @property
    def unavailable_reason(self) -> str:
        return self._upstream.unavailable_reason

    async def close(self) -> None:
        await self._upstream.close()
        # The server ends with its last reference.
        self._server = None

    async def generate(self, sequence: Sequence) -> AsyncGenerator[TokenChunk, None]:
        """Stream until a token is missing; from there on, request blocks.

        Why: the server sends nothing for a token that ends within a character, and the next event
        has the whole character's text but only its own id. The missing ids are unknown, so the
        block that has them is computed again, without streaming.
        """
        made = list(sequence.output_ids)
        async with aclosing(self._streamed(sequence)) as pieces:
            async for piece in pieces:
                if piece is None:
                    break
                made += piece.token_ids
                yield piece
                if piece.finish is not None:
                    return
        while True:
            piece = await self._block(replace(sequence, output_ids=tuple(made)))
            made += piece.token_ids
            yield piece
            if piece.finish is not None:
                return

    async def _streamed(self, sequence: Sequence) -> AsyncGenerator[TokenChunk | None, None]:
        """Yield chunks up to the finish, or None at a gap."""
        body = _body(sequence, tokens_left(sequence)) | {"stream": True}
        made = 0
        async with aclosing(self._upstream.events("/completion", body)) as events:
            async for event in events:
                token_ids = _token_ids(event)
                made += len(token_ids)
                if event.get("tokens_predicted") != made:
                    yield None
                    return
                yield TokenChunk(token_ids, _finish(event))

    async def _block(self, sequence: Sequence) -> TokenChunk:
        count = min(_BLOCK, tokens_left(sequence))
        event = await self._upstream.post("/completion", _body(sequence, count))
        finish = _finish(event)
        if finish is FinishReason.LENGTH and count < tokens_left(sequence):
            finish = None
        return TokenChunk(_token_ids(event), finish)


def _body(sequence: Sequence, count: int) -> dict[str, Any]:
    parameters = sequence.parameters
    return {
        "prompt": [*sequence.prompt_ids, *sequence.output_ids],
        "n_predict": count,
        "return_tokens": True,
        "cache_prompt": True,
        "seed": seed_of(sequence, bits=32),
        "samplers": _ORDER,
        **{own: getattr(parameters, name) for name, own in names_in("llama_cpp").items()},
        "repeat_last_n": len(sequence.prompt_ids) + parameters.max_tokens,
        "logit_bias": [[token_id, bias] for token_id, bias in parameters.logit_bias.items()],
        "ignore_eos": parameters.ignore_eos,
    }


def _token_ids(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(event.get("tokens", ()))


def _finish(event: dict[str, Any]) -> FinishReason | None:
    return _FINISHES.get(event.get("stop_type", "")) if event.get("stop") else None


def load_llama_cpp(settings: WorkerSettings) -> LoadedModel:
    """Load a GGUF file; blocks until it is loaded.

    Raises:
        ModelLoadFailed: with the reason.
    """
    file = Path(settings.model_source).expanduser()
    try:
        import gguf
        import xllamacpp
    except ImportError as error:
        raise PackageMissing(str(file), engine="llama-cpp", package="xllamacpp") from error
    if not file.is_file():
        raise ModelLoadFailed(str(file), "there is no such file; engine llama-cpp takes a GGUF")
    try:
        described = gguf.GGUFReader(file)
    except ValueError as error:
        raise ModelLoadFailed(str(file), f"it is no GGUF file: {error}") from error
    slots, key = settings.max_slots or _SLOTS, secrets.token_urlsafe(32)
    context_tokens = _context_tokens(described, settings)
    parameters = _parameters(xllamacpp, file, settings, key)
    parameters.n_parallel, parameters.n_ctx = slots, slots * context_tokens
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ModelLoadFailed(str(file), f"llama.cpp reports: {error}") from error
    loop = LoopThread("llama.cpp")
    address = UpstreamSettings(
        server.listening_address, SecretStr(key), probe_path="/health", uses_proxy=False
    )
    upstream = Upstream(address)
    meta = loop.run(upstream.get("/v1/models"))["data"][0]["meta"]
    files = _tokenizer_files(file, settings)
    facts = EngineFacts(
        name="llama-cpp",
        dtype=str(meta["ftype"]),
        max_slots=slots,
        context_tokens=context_tokens,
        vocabulary_size=int(meta["n_vocab"]),
        eos_token_ids=files.eos_token_ids,
        weights_digest=_digest(file),
        # It draws from a generator of its own, which cannot be continued.
        batch_invariant=False,
        capabilities=Capabilities(sampling=names_in("llama_cpp").keys()),
    )
    engine = RemoteEngine(facts, LlamaCppBackend(server, upstream), loop)
    return LoadedModel(engine, files, {}, int(meta["n_params"]))


def _parameters(package: Any, file: Path, settings: WorkerSettings, key: str) -> Any:
    parameters = package.CommonParams()
    parameters.model.path = str(file)
    parameters.hostnames, parameters.port, parameters.api_keys = ["127.0.0.1"], 0, [key]
    parameters.ui = parameters.endpoint_slots = False
    parameters.verbosity = _QUIET
    if settings.dtype == "float32":
        # Its flash attention computes in 16 bits whatever the cache has.
        parameters.cache_type_k = parameters.cache_type_v = package.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = package.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # Else it lowers these values until it estimates that they fit into memory.
    parameters.fit_params = False
    threads = settings.threads or max(1, (os.cpu_count() or 1) // 2)
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return parameters


def _context_tokens(described: Any, settings: WorkerSettings) -> int:
    """Return the model's own context, at most what is set."""
    architecture = described.get_field("general.architecture").contents()
    own = described.get_field(f"{architecture}.context_length")
    requested = settings.context_tokens or _CONTEXT_TOKENS
    return requested if own is None else min(requested, int(own.contents()))


def _tokenizer_files(file: Path, settings: WorkerSettings) -> TokenizerFiles:
    if settings.model_tokenizer is not None:
        return tokenizer_files(str(file), settings.model_tokenizer)
    try:
        return tokenizer_files(str(file), file.parent, gguf_file=file.name)
    except Exception as error:  # tokenizers raises nothing narrower
        fact = f"no tokenizer can be made of what it has ({error}); name one by model_tokenizer"
        raise ModelLoadFailed(str(file), fact) from error


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{file_digest(stream, 'sha256').hexdigest()}"
