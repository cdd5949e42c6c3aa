"""Bodies that nobody should send: valid ones, changed by a seeded source of bad luck."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.v1.embeddings_pb2 import EmbedRequest, RerankRequest
from headrace.v1.generation_pb2 import GenerateRequest
from headrace.v1.models_pb2 import TokenizeRequest

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
]
TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "a", "signature": "b"},
            {"type": "tool_use", "id": "c", "name": "look", "input": {"a": 1}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c", "content": "d", "is_error": True},
            {"type": "text", "text": "And?"},
        ],
    },
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "look", "description": "?", "parameters": SCHEMA}}
_COMMON = {
    "model": "valley",
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 2,
    "temperature": 1.0,
    "top_p": 0.9,
    "stop": ["x"],
    "logit_bias": {"5": 1.5},
    "seed": 7,
    "service_tier": "auto",
    "metadata": {"a": "b"},
    "top_k": 4,
    "stop_token_ids": [3],
    "return_token_ids": True,
}
_PARAMETERS = {
    "temperature": 1.0,
    "max_tokens": 9,
    "stop": ["x"],
    "logit_bias": {"5": 1.5},
    "logprobs": 1,
    "structure": {"regex": "[ab]+"},
}
_NATIVE = {"seed": "7", "n": 2, "parameters": _PARAMETERS, "priority": "PRIORITY_BULK"}

VALID: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        _COMMON | {"messages": MESSAGES, "max_tokens": 5, "logprobs": True, "top_logprobs": 2},
        {"model": "valley", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto"},
        {
            "model": "valley",
            "messages": MESSAGES,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
            },
        },
        {"model": "valley", "messages": MESSAGES, "structured_outputs": {"choice": ["a", "b"]}},
    ],
    "/v1/completions": [
        _COMMON | {"prompt": "Hello", "logprobs": 1, "max_tokens": 5},
        {"model": "valley", "prompt": [5, 6], "guided_regex": "[0-9]{2}", "echo": True},
        {"model": "valley", "prompt": ["a"], "guided_grammar": 'root ::= "a"'},
        _COMMON | {"prompt": ["Hello", "a"], "logprobs": 1, "echo": True, "max_tokens": 5},
        {"model": "valley", "prompt": [[5, 6], [7]], "prompt_logprobs": 1},
    ],
    "/v1/embeddings": [
        {"model": "sense", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2},
        {"model": "sense", "input": [[5, 6], [7]], "truncate_prompt_tokens": -1},
    ],
    "/v1/rerank": [
        {"model": "sense", "query": "a", "documents": ["b", {"text": "c"}], "top_n": 1},
        {"model": "sense", "query": "a", "texts": ["b", "c"], "truncate": True},
    ],
    "/v2/rerank": [
        {"model": "sense", "query": "a", "documents": ["b"], "max_tokens_per_doc": 9, "top_n": 1},
    ],
    "/v1/score": [
        {"model": "sense", "text_1": "a", "text_2": ["b", "c"]},
        {"queries": ["a", "b"], "documents": ["b", "c"], "truncate_prompt_tokens": -1},
    ],
    "/embed": [{"inputs": ["a", "b"], "normalize": False, "truncate": True, "dimensions": 2}],
    "/v1/messages": [
        {
            "model": "valley",
            "max_tokens": 9,
            "system": [
                {"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}
            ],
            "messages": TURNS,
            "tools": [{"name": "look", "description": "?", "input_schema": SCHEMA}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "stream": True,
            "stop_sequences": ["x"],
            "metadata": {"user_id": "a"},
        },
        {
            "model": "valley",
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "a"},
            ],
            "temperature": 1.0,
            "top_k": 4,
            "top_p": 0.9,
            "thinking": {"type": "enabled", "budget_tokens": 5},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ],
    "/v1/messages/count_tokens": [
        {"model": "valley", "system": "Be short.", "messages": TURNS},
    ],
    "/v1/classify": [
        {"model": "sorts", "input": ["a", "b"], "use_activation": False},
        {"input": [[5, 6], [7]], "truncate_prompt_tokens": -1},
    ],
    "/v1/pooling": [
        {"model": "sorts", "input": "a", "task": "classify", "encoding_format": "base64"},
        {"model": "sense", "input": "a", "dimensions": 2},
    ],
    "/predict": [{"inputs": [["a"], ["b", "c"]], "raw_scores": True, "truncate": True}],
    "/similarity": [
        {
            "model": "sense",
            "inputs": {"source_sentence": "a", "sentences": ["b", "c"]},
            "parameters": {"truncate": True},
        },
    ],
    "/v1/moderations": [{"model": "sorts", "input": ["a", {"type": "text", "text": "b"}]}],
    "/tokenize": [
        {"model": "valley", "prompt": "Hello", "add_special_tokens": False},
        {"model": "valley", "messages": MESSAGES, "return_token_strs": True, "tools": [TOOL]},
        {"model": "valley", "content": "Hello", "with_pieces": True},
    ],
    "/detokenize": [{"model": "valley", "tokens": [5, 6]}],
    "/v2/models/valley:generate": [
        _NATIVE | {"prompt": "Hello", "timeout": "9s", "request_id": "fuzz"},
        {"messages": [{"role": "user", "content": "Hello"}], "patience": "1.5s"},
        {"promptTokenIds": [5, 6], "tools": [{"name": "look", "parameters": "{}"}]},
    ],
    "/v2/models/valley:streamGenerate": [_NATIVE | {"prompt": "Hello"}],
    "/v2/models/valley:tokenize": [
        {"text": "Hello"},
        {"messages": [{"role": "user", "content": "a"}]},
    ],
    "/v2/models/sense:embed": [{"inputs": [{"text": "a"}, {"tokenIds": [5]}], "dimensions": 2}],
    "/v2/models/sense:rerank": [{"query": "a", "documents": ["b"], "topN": 1}],
}
"""By path, for a mesh with a model "valley" that makes text, a "sense" that makes vectors, and a
"sorts" that classifies."""

TYPED: dict[str, tuple[str, type[Message]]] = {
    "/v2/models/valley:generate": ("/headrace.v1.GenerationService/Generate", GenerateRequest),
    "/v2/models/valley:streamGenerate": (
        "/headrace.v1.GenerationService/StreamGenerate",
        GenerateRequest,
    ),
    "/v2/models/valley:tokenize": ("/headrace.v1.ModelService/Tokenize", TokenizeRequest),
    "/v2/models/sense:embed": ("/headrace.v1.EmbeddingService/Embed", EmbedRequest),
    "/v2/models/sense:rerank": ("/headrace.v1.EmbeddingService/Rerank", RerankRequest),
}
"""The typed calls that take the same as these paths."""


@dataclass(frozen=True)
class Raw:
    """Written as it is: what `json.dumps` would not write."""

    text: bytes


NASTY: list[object] = [
    *(None, True, False, "", {}, [], [[]], [{}], {"": None}, [None], ["a", 1], {"type": 1}),
    *(0, -1, 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63) - 1, 0.5, -0.0, 1e308, 5e-324),
    *("a", "x" * 5000, "\x00", "\u2028🌊é", "nobody", "valley", "\\", '"', "a" * 65, "1s", "-1s"),
    *("NaN", "1", "true", "[", "(" * 200, "(a+)+$" * 9, "{" * 50, "../..", "a.b.>", "%s{0}"),
    *({"$ref": "#"}, {"type": "object", "additionalProperties": {"$ref": "#"}}),
    *({"anyOf": [{"type": "string"}] * 50}, {"enum": []}, {"pattern": "("}, {"const": 1e300}),
    *({"type": "array", "minItems": 10**9}, {"type": "string", "maxLength": 10**12}),
    *({"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text"}, {"text": 1}),
    *([5] * 5000, ["x"] * 20_000, list(range(300)), {str(i): i for i in range(300)}),
    *(map(Raw, (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"01", b"+1", b".5", b"1."))),
    *(map(Raw, (b"1" * 5000, b"1." + b"9" * 5000, b"0x10", b"tru", b"'a'", b"", b"undefined"))),
    *(map(Raw, (rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u0000"', b'"\xff"', b'"\xed\xa0\x80"'))),
    *(map(Raw, (b'"\n"', b'"\x00"', rb'"\x41"', b'"', b"[" * 10_000, b'{"a":' * 10_000))),
    Raw(b"[" * 150 + b"]" * 150),
    Raw(b'{"a":' * 150 + b"1" + b"}" * 150),
    Raw(b'{"a": 1, "a": 2}'),
    Raw(b"/* */ 1"),
]

_LONGEST = 300_000
_Place = tuple[Any, Any]


def places(value: object) -> list[_Place]:
    """Every (container, key or index) below a value."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    found: list[_Place] = []
    for key in keys:
        found += [(value, key), *places(value[key])]  # type: ignore[index]
    return found


def written(value: object) -> bytes:
    """As JSON, with `Raw` parts as they are."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        pairs = (json.dumps(k).encode() + b":" + written(v) for k, v in value.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(written, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _replace(body: dict[str, Any], luck: Random) -> None:
    container, key = luck.choice(places(body) or [(body, "model")])
    container[key] = copy.deepcopy(luck.choice(NASTY))


def _remove(body: dict[str, Any], luck: Random) -> None:
    if found := places(body):
        container, key = luck.choice(found)
        del container[key]


def _add(body: dict[str, Any], luck: Random) -> None:
    """A field of another body, or one that there is not; with its own value or any."""
    other = luck.choice(luck.choice(list(VALID.values())))
    name = luck.choice([*other, "zzz", "", "__class__", "model ", "Model", "n\x00"])
    value = other.get(name) if luck.random() < 0.5 else luck.choice(NASTY)
    body[name] = copy.deepcopy(value)


def _move(body: dict[str, Any], luck: Random) -> None:
    """A part of the body to where another part is."""
    found = places(body)
    if found:
        (container, key), (source, name) = luck.choice(found), luck.choice(found)
        container[key] = copy.deepcopy(source[name])


def _repeat(body: dict[str, Any], luck: Random) -> None:
    """A list again at the end of another, once or often, but not into gigabytes."""
    lists = [c[k] for c, k in places(body) if isinstance(c[k], list) and c[k]]
    if lists:
        part, times = luck.choice(lists), luck.choice((1, 5, 200))
        most = _LONGEST // len(written(part))
        luck.choice(lists).extend(copy.deepcopy(part) * min(times, most))


_OF_VALUES = (_replace, _replace, _replace, _remove, _add, _move, _repeat)


def _cut(data: bytes, luck: Random) -> bytes:
    return data[: luck.randrange(len(data) + 1)]


def _flip(data: bytes, luck: Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(luck.choice((1, 1, 3, 20))):
        changed[luck.randrange(len(changed))] = luck.randrange(256)
    return bytes(changed)


def _insert(data: bytes, luck: Random) -> bytes:
    at = luck.randrange(len(data) + 1)
    parts = (b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"{", b"]", b",", b'"', b"\\u", b"\n", b"1e9")
    return data[:at] + luck.choice(parts) + data[at:]


def _twice(data: bytes, luck: Random) -> bytes:
    """Every name twice."""
    inner = data.strip()[1:-1]
    return b"{" + inner + b"," + inner + b"}"


def _utf16(data: bytes, luck: Random) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16")


def _noise(data: bytes, luck: Random) -> bytes:
    return luck.randbytes(luck.choice((0, 1, 8, 300)))


_OF_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_cut, _flip, _insert, _twice, _utf16, _noise),
)


def body(path: str, luck: Random) -> bytes:
    """A valid body of this path, changed once or a few times; now and then not at all."""
    return changed(VALID[path], luck)


def changed(valid: list[dict[str, Any]], luck: Random) -> bytes:
    value = copy.deepcopy(luck.choice(valid))
    for _ in range(luck.choice((0, 1, 1, 1, 2, 4))):
        luck.choice(_OF_VALUES)(value, luck)
    data = written(value)
    return damaged(data, luck) if luck.random() < 0.25 else data


def damaged(data: bytes, luck: Random) -> bytes:
    return luck.choice(_OF_BYTES)(data, luck)


def message(path: str, luck: Random) -> bytes:
    """The same for the typed call that a path has: written as protobuf, now and then badly."""
    _, kind = TYPED[path]
    while True:
        value = copy.deepcopy(luck.choice(VALID[path]))
        for _ in range(luck.choice((0, 1, 1, 2))):
            luck.choice(_OF_VALUES)(value, luck)
        try:
            typed = json_format.Parse(written(value), kind(), ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, RecursionError):
            continue  # what has no typed form
        break
    typed.model = path.removeprefix("/v2/models/").partition(":")[0]  # type: ignore[attr-defined]  # all have one
    data = typed.SerializeToString()
    return luck.choice((_cut, _flip, _noise))(data, luck) if luck.random() < 0.3 else data
