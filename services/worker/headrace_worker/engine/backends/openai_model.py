"""An OpenAI-compatible server's model, as a model of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from tokenizers import Tokenizer

from headrace.sampling import names_in
from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.backends.openai_source import (
    CHAT_TEMPLATE,
    OpenAISource,
    Speech,
    speaks_in_pieces,
)
from headrace_worker.engine.backends.remote_engine import FollowingEngine, SourceFailed
from headrace_worker.engine.backends.upstream import Upstream, UpstreamFailed, UpstreamSettings
from headrace_worker.engine.base.interface import Capabilities, EngineFacts
from headrace_worker.engine.base.loaded import (
    LoadedModel,
    ModelLoadFailed,
    ModelOutOfReach,
)
from headrace_worker.engine.files.tokenizer_files import tokenizer_files

_SLOTS = 64


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """Which model, and how it is spoken to."""

    upstream: UpstreamSettings
    model: str
    """Its name there."""
    tokenizer: str | None
    """Folder or hub id; what gateways count and cut text with."""
    speech: Speech = Speech.TOKEN_IDS
    max_slots: int | None = None
    context_tokens: int | None = None


def load_openai(settings: OpenAISettings) -> LoadedModel:
    """Ask the server for the model, and give it the shape of an engine.

    Raises:
        ModelOutOfReach: the server is; later it may not be.
        ModelLoadFailed: with the reason.
    """
    url = settings.upstream.url
    if not url.startswith(("http://", "https://")):
        raise ModelLoadFailed(url, "engine openai takes a URL as its model: http://host:8000/v1")
    if settings.tokenizer is None:
        raise ModelLoadFailed(url, "engine openai needs model_tokenizer, a folder or a hub id")
    loop = LoopThread("upstream")
    upstream = Upstream(settings.upstream)
    try:
        return _loaded(settings, upstream, loop)
    except (SourceFailed, ModelLoadFailed) as error:
        loop.run(upstream.close())
        loop.stop()
        if isinstance(error, ModelLoadFailed):
            raise
        kind = ModelOutOfReach if isinstance(error, UpstreamFailed) else ModelLoadFailed
        raise kind(url, str(error)) from error


def _loaded(settings: OpenAISettings, upstream: Upstream, loop: LoopThread) -> LoadedModel:
    # First: a tokenizer takes seconds to load.
    context_tokens = loop.run(_context_tokens(upstream, settings))
    files = tokenizer_files(upstream.url, str(settings.tokenizer))
    tokenizer = _tokenizer(files.tokenizer_json, settings.speech, upstream.url)
    if settings.speech is Speech.CHAT:
        files = replace(files, chat_template=CHAT_TEMPLATE)
    bos = files.special_tokens.get("bos_token", "")
    source = OpenAISource(upstream, settings.model, settings.speech, tokenizer, bos)
    if settings.speech is Speech.TOKEN_IDS:
        loop.run(source.require_token_ids())
    facts = EngineFacts(
        name="openai",
        dtype="unknown",
        max_slots=settings.max_slots or _SLOTS,
        context_tokens=context_tokens,
        vocabulary_size=tokenizer.get_vocab_size(with_added_tokens=True),
        eos_token_ids=files.eos_token_ids,
        weights_digest=_digest(settings),
        batch_invariant=False,
        capabilities=Capabilities(
            resume=settings.speech is Speech.TOKEN_IDS, sampling=names_in("openai").keys()
        ),
    )
    return LoadedModel(FollowingEngine(facts, source, loop), files, {}, 0)


def _tokenizer(tokenizer_json: bytes, speech: Speech, url: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    # What the server says is text; "<|end|>" in it must not become an end of ours.
    tokenizer.encode_special_tokens = True
    if speech is not Speech.TOKEN_IDS and not speaks_in_pieces(tokenizer):
        raise ModelLoadFailed(
            url,
            "its model_tokenizer changes text that it encodes piece by piece; with upstream_speaks"
            " text or chat it must be a byte-level one, as GPT-2's",
        )
    return tokenizer


async def _context_tokens(upstream: Upstream, settings: OpenAISettings) -> int:
    """As the server says, at most what the settings say."""
    listed = (await upstream.get("/models")).get("data")
    models: list[Any] = listed if isinstance(listed, list) else []
    found = next((m for m in models if m.get("id") == settings.model), None)
    if found is None:
        # Not every server lists what it serves.
        found = await upstream.get(f"/models/{settings.model}")
    said = found.get("max_model_len")
    bounds = [b for b in (said, settings.context_tokens) if isinstance(b, int)]
    if not bounds:
        fact = f"it does not say how long the context of {settings.model} is; set context_tokens"
        raise ModelLoadFailed(settings.upstream.url, fact)
    return min(bounds)


def _digest(settings: OpenAISettings) -> str:
    """Its weights nobody here sees; one name at one address stands for them."""
    what = f"{settings.upstream.url} {settings.model} {settings.speech}"
    return f"upstream:{sha256(what.encode()).hexdigest()}"
