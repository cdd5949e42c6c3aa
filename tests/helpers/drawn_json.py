"""Texts drawn at random from what a grammar allows, by a vocabulary of bytes."""

from __future__ import annotations

import json
import random
from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headrace_worker.engine.base.interface import Grammar, GrammarKind
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.grammar.backends import compiler_for
from headrace_worker.engine.grammar.compiler import Compiled, CompileFunction

END = 0
LONG = 60
"""Tokens after which what ends something is taken mostly, wherever it may come."""
MOST = 3000
_SEVERAL = ('{"', '": ', ', "', "\\u00", "é")
_ENDING = ('"', "}", "]")


@cache
def _vocabulary() -> tuple[str, ...]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [_spelled(word) for word in _SEVERAL]
    return ("<end>", *letters, *(word for word in words if word not in letters))


def _spelled(text: str) -> str:
    """In the letters that stand for bytes."""
    return "".join(_letters()[byte] for byte in text.encode())


@cache
def tokenizer() -> Tokenizer:
    """Every byte is a token, and a few that JSON often has beside one another."""
    vocabulary = {token: i for i, token in enumerate(_vocabulary())}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.add_special_tokens(["<end>"])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@cache
def compiler(backend: str) -> CompileFunction:
    """Compiles for that vocabulary."""
    files = TokenizerFiles(tokenizer().to_str().encode(), None, {}, (END,))
    made = compiler_for(backend, files, len(_vocabulary()))
    assert made is not None
    return made


def compiled(backend: str, schema: object) -> Compiled:
    """Raises GrammarRefused."""
    return compiler(backend)(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)))


def draw(made: Compiled, seed: int, *, likely: str = "") -> bytes:
    """One whole text that the grammar allows; the longer it is, the more of `likely` characters."""
    choose = random.Random(seed)
    matcher = made()
    bits = torch.zeros(1, -(-len(_vocabulary()) // 32), dtype=torch.int32)
    ending = {END, *(_vocabulary().index(_spelled(each)) for each in _ENDING)}
    familiar = {_vocabulary().index(_spelled(each)) for each in set(likely) if each.isascii()}
    tokens: list[int] = []
    while not matcher.is_terminated:
        matcher.fill_bitmask(bits, 0)
        allowed = np.unpackbits(bits.numpy().view(np.uint8)[0], bitorder="little")
        options: list[int] = allowed[: len(_vocabulary())].nonzero()[0].tolist()
        assert options, f"nothing may follow {_text(tokens)!r}"
        requested = ending if choose.random() < 0.3 else familiar if len(tokens) > LONG else set()
        token = choose.choice([each for each in options if each in requested] or options)
        assert matcher.accept(token), f"{token} was allowed after {_text(tokens)!r}"
        if token == END:
            break
        tokens.append(token)
        assert len(tokens) < MOST, f"no end after {_text(tokens)[:200]!r}"
    return _text(tokens)


def _text(tokens: list[int]) -> bytes:
    bytes_ = {letter: byte for byte, letter in _letters().items()}
    return bytes(bytes_[letter] for token in tokens for letter in _vocabulary()[token])


@cache
def _letters() -> dict[int, str]:
    """The letter of each byte, as byte-level tokenizers have it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}
