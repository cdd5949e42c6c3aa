"""Load the model of an OpenAI-compatible server as an engine."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

from pydantic import SecretStr
from tokenizers import Tokenizer

from headrace.sampling import names_in
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.backends.openai_backend import (
    CHAT_TEMPLATE,
    OpenAIBackend,
    UpstreamProtocol,
    encodes_piecewise,
)
from headrace_worker.engine.backends.remote_engine import BackendError, RemoteEngine
from headrace_worker.engine.backends.upstream import Upstream, UpstreamSettings, UpstreamUnavailable
from headrace_worker.engine.base.interface import Capabilities, EngineFacts
from headrace_worker.engine.base.loaded_model import LoadedModel, ModelLoadFailed, ModelUnreachable
from headrace_worker.engine.files.tokenizer_files import tokenizer_files

_SLOTS = 64


def load_openai(settings: WorkerSettings) -> LoadedModel:
    """Connect to the server and return its model as an engine.

    Raises:
        ModelUnreachable: the server cannot be reached now; a later try may succeed.
        ModelLoadFailed: with the reason.
    """
    url = settings.model_source
    if not url.startswith(("http://", "https://")):
        raise ModelLoadFailed(url, "engine openai takes a URL as its model: http://host:8000/v1")
    if settings.model_tokenizer is None:
        raise ModelLoadFailed(url, "engine openai needs model_tokenizer, a folder or a hub id")
    upstream_settings = UpstreamSettings(
        url,
        _api_key(settings),
        timeout_s=settings.upstream_timeout_s,
        retries=settings.upstream_retries,
        failures=settings.upstream_failures,
        pause_s=settings.upstream_pause_s,
    )
    loop = LoopThread("upstream")
    upstream = Upstream(upstream_settings)
    try:
        return _load(settings, upstream, loop)
    except (BackendError, ModelLoadFailed) as error:
        loop.run(upstream.close())
        loop.stop()
        if isinstance(error, ModelLoadFailed):
            raise
        kind = ModelUnreachable if isinstance(error, UpstreamUnavailable) else ModelLoadFailed
        raise kind(url, str(error)) from error


def _load(settings: WorkerSettings, upstream: Upstream, loop: LoopThread) -> LoadedModel:
    assert settings.model_tokenizer is not None
    model = settings.upstream_model or settings.model_name
    protocol = UpstreamProtocol(settings.upstream_speaks)
    # First: a tokenizer takes seconds to load.
    context_tokens = loop.run(_context_tokens(upstream, model, settings.context_tokens))
    files = tokenizer_files(upstream.url, settings.model_tokenizer)
    tokenizer = _tokenizer(files.tokenizer_json, protocol, upstream.url)
    if protocol is UpstreamProtocol.CHAT:
        files = replace(files, chat_template=CHAT_TEMPLATE)
    bos = files.special_tokens.get("bos_token", "")
    backend = OpenAIBackend(upstream, model, protocol, tokenizer, bos)
    sends_token_ids = protocol is UpstreamProtocol.TOKEN_IDS
    if sends_token_ids:
        loop.run(backend.require_token_ids())
    facts = EngineFacts(
        name="openai",
        dtype="unknown",
        max_slots=settings.max_slots or _SLOTS,
        context_tokens=context_tokens,
        vocabulary_size=tokenizer.get_vocab_size(with_added_tokens=True),
        eos_token_ids=files.eos_token_ids,
        weights_digest=_digest(upstream.url, model, protocol),
        batch_invariant=False,
        capabilities=Capabilities(resume=sends_token_ids, sampling=names_in("openai").keys()),
    )
    return LoadedModel(RemoteEngine(facts, backend, loop), files, {}, 0)


def _api_key(settings: WorkerSettings) -> SecretStr | None:
    file = settings.upstream_api_key_file
    if file is None:
        return settings.upstream_api_key
    try:
        return SecretStr(file.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = f"upstream_api_key_file {file} cannot be read: {type(error).__name__}"
        raise ModelLoadFailed(settings.model_source, reason) from error


def _tokenizer(tokenizer_json: bytes, protocol: UpstreamProtocol, url: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    # The server's answers are text; "<|end|>" in them must not become an end-of-sequence token.
    tokenizer.encode_special_tokens = True
    if protocol is not UpstreamProtocol.TOKEN_IDS and not encodes_piecewise(tokenizer):
        raise ModelLoadFailed(
            url,
            "its model_tokenizer changes text that it encodes piece by piece; with upstream_speaks"
            " text or chat it must be a byte-level one, as GPT-2's",
        )
    return tokenizer


async def _context_tokens(upstream: Upstream, model: str, requested: int | None) -> int:
    """Return the context that the server reports, at most `requested` tokens."""
    listed = (await upstream.get("/models")).get("data")
    models: list[Any] = listed if isinstance(listed, list) else []
    found = next((m for m in models if m.get("id") == model), None)
    if found is None:
        # Not every server lists what it serves.
        found = await upstream.get(f"/models/{model}")
    bounds = [b for b in (found.get("max_model_len"), requested) if isinstance(b, int)]
    if not bounds:
        fact = f"it does not report the context length of {model}; set context_tokens"
        raise ModelLoadFailed(upstream.url, fact)
    return min(bounds)


def _digest(url: str, model: str, protocol: UpstreamProtocol) -> str:
    """Return a digest of the model's name and address, for its weights are not visible here."""
    return f"upstream:{sha256(f'{url} {model} {protocol}'.encode()).hexdigest()}"
