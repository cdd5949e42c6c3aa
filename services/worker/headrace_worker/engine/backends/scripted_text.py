"""The words of the scripted engine, and its tokenizer.

The vocabulary is byte level, so any text survives the round trip; words are single tokens, and now
and then a character comes as several tokens of one byte, as with real tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from struct import pack

from headrace.logprobs import Logprobs
from headrace_worker.engine.base.loaded_model import TokenizerFiles

_SPECIALS = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
_WORDS = (
    "river water wheel valley mill stone bridge gate field orchard harbour lantern meadow "
    "willow heron otter copper timber kettle window garden market ladder basket thunder "
    "morning winter summer shadow silver hollow pebble"
)
_CHARACTERS = ("🌊", "水", "é", "🦦", "車", "🌾", "ß", "谷")

_CHAT_TEMPLATE = """\
{%- if tools %}<|system|>
You may call: {{ tools | tojson }}<|end|>
{% endif -%}
{%- for message in messages %}<|{{ message.role }}|>
{{ message.content if message.content else '' }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|end|>
{% endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif -%}
"""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PHRASE = 16
"""Tokens of a phrase: eleven words, then five that are words or a character's bytes."""


def script_key(prompt_ids: tuple[int, ...], seed: int | None) -> int:
    """Hash what the output depends on to 64 bits; `seed` is None for greedy requests."""
    digest = blake2b(pack(f"<{len(prompt_ids)}q", *prompt_ids), digest_size=8)
    if seed is not None:
        digest.update(pack("<Q", seed))
    return int.from_bytes(digest.digest(), "little")


def script_length(key: int) -> int:
    """Return the tokens before the end-of-sequence token, in [16, 64]."""
    return 16 + key % 49


def script_token(key: int, index: int) -> int:
    """Return the token at an output index; never end-of-sequence."""
    phrase, place = divmod(index, _PHRASE)
    words, tails = _script_pieces()
    if place >= 11 and _mix(key ^ phrase) % 3 == 0:
        return tails[_mix(key + phrase) % len(tails)][place - 11]
    return words[_mix(key + index * _GOLDEN) % len(words)]


def script_logprobs(key: int, index: int, token_ids: Sequence[int], width: int) -> Logprobs:
    """Return plausible logprobs for these tokens, from position `index` on; theirs are the
    highest."""
    run, (others, _) = Logprobs(), _script_pieces()
    for place, token_id in enumerate(token_ids, index):
        bits = _mix(key ^ (place * _GOLDEN & _MASK))
        first = -0.3 - bits % 1024 / 2048
        ranks = range(min(width, len(others) + 1))
        top = [first - (3 + 0.3 * rank if rank else 0) for rank in ranks]
        beside = [other for other in others if other != token_id]
        turn = bits >> 32
        top_ids = [beside[(turn + rank) % len(beside)] if rank else token_id for rank in ranks]
        run.extend(Logprobs.of([first], top_ids, top))
    return run


def end_token() -> int:
    """Return the end-of-sequence token."""
    return _SPECIALS.index("<|end|>")


def vocabulary_size() -> int:
    return len(_vocabulary()[0])


@cache
def scripted_tokenizer_files() -> TokenizerFiles:
    """Return the tokenizer of the scripted engine; equal on every call."""
    vocabulary, merges = _vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = {**flags, "special": True}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": text, **special} for i, text in enumerate(_SPECIALS)],
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocabulary, "merges": merges},
    }
    return TokenizerFiles(
        tokenizer_json=json.dumps(document, ensure_ascii=False).encode(),
        chat_template=_CHAT_TEMPLATE,
        special_tokens={"bos_token": "<|bos|>", "eos_token": "<|end|>"},
        eos_token_ids=(end_token(),),
    )


@cache
def _script_pieces() -> tuple[list[int], list[list[int]]]:
    """Return the words, and what may end a phrase: a word or two, then a character's bytes."""
    (vocabulary, _), letters = _vocabulary(), _byte_letters()
    space = letters[0x20]
    words = [vocabulary[space + word] for word in _WORDS.split()]
    tails = []
    for word, character in zip(words, _CHARACTERS, strict=False):
        raw = [vocabulary[letters[byte]] for byte in character.encode()]
        tails.append([*[word] * (4 - len(raw)), vocabulary[space], *raw])
    return words, tails


@cache
def _vocabulary() -> tuple[dict[str, int], list[list[str]]]:
    """Return special tokens, the 256 bytes, then every word with the prefixes that lead to it."""
    vocabulary = {text: index for index, text in enumerate(_SPECIALS)}
    letters = _byte_letters()
    for letter in letters:
        vocabulary[letter] = len(vocabulary)
    merges: list[list[str]] = []
    for word in _WORDS.split():
        made = letters[0x20]
        for letter in word:
            if made + letter not in vocabulary:
                vocabulary[made + letter] = len(vocabulary)
                merges.append([made, letter])
            made += letter
    return vocabulary, merges


@cache
def _byte_letters() -> list[str]:
    """Return GPT-2's printable letter for each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
