"""Fields of OpenAI's and vLLM's bodies that do nothing here, or are not served.

A field that cannot change the answer is accepted and does nothing. One that would change it and is
not served is refused, unless it has a value that means "not used": a caller should not believe that
it has worked. A field that is not in the bodies and not in these tables is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnsupportedField:
    neutral: tuple[object, ...]
    """Values that mean "not used", beside null; clients send them."""
    why: str


UnsupportedFields = Mapping[str, UnsupportedField]
IgnoredFields = Mapping[str, str]
"""Name to why the answer does not depend on it."""

_NO_BEAM = "beam search is not served: tokens are drawn or greedy"
_PASSED_ON = "a client's chat template is not used"
_NO_AUDIO = "only text is made"
_TEXT_ALONE = "only text is read"
_LOADED = "chosen where the worker is configured, not by a request"
_ONE_WORKER = "keys and values are not handed between engines"

_BOTH: UnsupportedFields = {
    "guided_whitespace_pattern": UnsupportedField((), "white space is the grammar's"),
    "kv_transfer_params": UnsupportedField(({},), _ONE_WORKER),
    "length_penalty": UnsupportedField((1, 1.0), _NO_BEAM),
    "logits_processors": UnsupportedField(([],), "callers' code is not run"),
    "use_beam_search": UnsupportedField((False,), _NO_BEAM),
    "vllm_xargs": UnsupportedField(({},), "of vLLM's own extensions"),
}

CHAT: UnsupportedFields = {
    **_BOTH,
    "audio": UnsupportedField((), _NO_AUDIO),
    "chat_template": UnsupportedField((), _PASSED_ON),
    "function_call": UnsupportedField(("none", "auto"), "use tool_choice"),
    "functions": UnsupportedField(([],), "use tools"),
    "modalities": UnsupportedField((["text"],), _NO_AUDIO),
    "moderation": UnsupportedField((), "nothing is moderated"),
    "verbosity": UnsupportedField(("medium",), "request it in a message"),
    "web_search_options": UnsupportedField((), "nothing is looked up"),
}

COMPLETION: UnsupportedFields = {
    **_BOTH,
    "parallel_tool_calls": UnsupportedField((True, False), "completions call no tools"),
    "prompt_embeds": UnsupportedField((), _TEXT_ALONE),
    "suffix": UnsupportedField(("",), "text is not filled in"),
}

EMBEDDINGS: UnsupportedFields = {
    "add_special_tokens": UnsupportedField((True,), "the model's own are kept"),
    "embed_dtype": UnsupportedField(("float32",), "vectors are float32"),
}

RERANK: UnsupportedFields = {
    "max_chunks_per_doc": UnsupportedField((), "documents are not cut into pieces"),
    "max_tokens_per_doc": UnsupportedField((), "use truncate_prompt_tokens"),
    "rank_fields": UnsupportedField(([], ["text"]), "documents are ranked by their text"),
}

RERANK_V2: UnsupportedFields = {
    "priority": UnsupportedField((0,), "use service_tier"),
    "rank_fields": UnsupportedField(([], ["text"]), "documents are ranked by their text"),
}

_ONE_SCORE = "scores pass the model's own activation"
_CUT_AT_THE_END = "what is too long is cut at its end"

SCORE: UnsupportedFields = {
    "activation": UnsupportedField((True,), _ONE_SCORE),
    "add_special_tokens": UnsupportedField((True,), "the model's own are kept"),
    "mm_processor_kwargs": UnsupportedField(({},), _TEXT_ALONE),
    "priority": UnsupportedField((0,), "use service_tier"),
    "truncation_side": UnsupportedField(("right",), _CUT_AT_THE_END),
    "use_activation": UnsupportedField((True,), _ONE_SCORE),
}

TEI_EMBED: UnsupportedFields = {
    "truncation_direction": UnsupportedField(("Right", "right"), _CUT_AT_THE_END)
}

TEI_RERANK: UnsupportedFields = {**TEI_EMBED, "raw_scores": UnsupportedField((False,), _ONE_SCORE)}

CLASSIFY: UnsupportedFields = {
    "add_special_tokens": UnsupportedField((True,), "the model's own are kept"),
    "messages": UnsupportedField((), "send the text as input"),
    "mm_processor_kwargs": UnsupportedField(({},), _TEXT_ALONE),
    "truncation_side": UnsupportedField(("right",), _CUT_AT_THE_END),
}
POOLING: UnsupportedFields = {
    **CLASSIFY,
    "embed_dtype": UnsupportedField(("float32",), "vectors are float32"),
    "normalize": UnsupportedField((), "the model's own way is kept"),
}

TOKENIZE_CONTENT: UnsupportedFields = {
    "parse_special": UnsupportedField((True,), "what is written like a special token is one")
}

MESSAGE: UnsupportedFields = {"audio": UnsupportedField((), _TEXT_ALONE)}

_KNOWN_CALLER = "it names the end user, which changes no answer"
_CACHES = "beginnings are cached anyway, and the answer is the same"

BODY_NO_EFFECT: IgnoredFields = {
    "guided_decoding_backend": _LOADED,
    "media_io_kwargs": _TEXT_ALONE,
    "metadata": "nothing is kept with an answer",
    "mm_processor_kwargs": _TEXT_ALONE,
    "prediction": "it can only make an answer faster, and is not used for that",
    "prompt_cache_key": _CACHES,
    "prompt_cache_options": _CACHES,
    "prompt_cache_retention": _CACHES,
    "safety_identifier": _KNOWN_CALLER,
    "spaces_between_special_tokens": "fast tokenizers, and no others are served, have one way",
    "store": "answers are kept as the gateway is configured, and not listed",
    "user": _KNOWN_CALLER,
}
VECTOR_NO_EFFECT: IgnoredFields = {"user": _KNOWN_CALLER}
STREAM_NO_EFFECT: IgnoredFields = {"include_obfuscation": "chunks are never padded"}
MESSAGE_NO_EFFECT: IgnoredFields = {
    "annotations": "what an answer cited is no part of its text",
    "parsed": "the text is there unparsed",
}
PART_NO_EFFECT: IgnoredFields = {"cache_control": _CACHES, "prompt_cache_breakpoint": _CACHES}
CALL_NO_EFFECT: IgnoredFields = {"index": "calls are in order"}
CALLED_NO_EFFECT: IgnoredFields = {"parsed_arguments": "the arguments are there unparsed"}
