"""Grammars by xgrammar."""

from __future__ import annotations

import json
import re
from typing import Any

import xgrammar
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from headrace_worker.engine.compiling import Compiled, GrammarRefused
from headrace_worker.engine.interface import Grammar, GrammarKind
from headrace_worker.engine.schemas import unenforced

_PLACE_IN_ITS_SOURCE = re.compile(r"^\[[\d:]+\] \S+\.cc:\d+: ")
_ANY_OBJECT = '{"type": "object", "additionalProperties": true}'


_BOUNDED_STRING = r"[^\"\\\r\n]"
_JSON_STRING = r"[^\0-\x1f\"\\\r\n]"


def _spelled_out(shape: Any) -> Any:
    """The structural tag with a grammar where it has a schema.

    Why: in there xgrammar takes schemas with white space without end, and control
    characters in strings of bounded length.
    """
    if isinstance(shape, list):
        return [_spelled_out(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    if shape.get("type") == "json_schema" and shape.get("style", "json") == "json":
        schema = json.dumps(shape.get("json_schema"))
        rules = str(xgrammar.Grammar.from_json_schema(schema, any_whitespace=False))
        return {"type": "grammar", "grammar": rules.replace(_BOUNDED_STRING, _JSON_STRING)}
    return {name: _spelled_out(each) for name, each in shape.items()}


class _Matcher:
    def __init__(self, compiled: xgrammar.CompiledGrammar) -> None:
        self._matcher = xgrammar.GrammarMatcher(compiled)

    def fill(self, bits: Tensor, row: int) -> None:
        self._matcher.fill_next_token_bitmask(bits, row)

    def accept(self, token_id: int) -> bool:
        return not self.is_over and self._matcher.accept_token(token_id)

    @property
    def is_over(self) -> bool:
        return self._matcher.is_terminated()


class Xgrammar:
    """Compiles for one tokenizer."""

    def __init__(
        self, tokenizer_json: bytes, *, vocabulary_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        """`eos_token_ids` are those that may come once a grammar is fulfilled; at least one."""
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
        seen = xgrammar.TokenizerInfo.from_huggingface(
            PreTrainedTokenizerFast(tokenizer_object=tokenizer),  # type: ignore[no-untyped-call]
            vocab_size=vocabulary_size,
            stop_token_ids=list(eos_token_ids),
        )
        texts = list(seen.decoded_vocab)
        for token_id, token in tokenizer.get_added_tokens_decoder().items():
            # Why: it would let "<|user|>" into a JSON string by the token of that name, and
            # gateways leave special tokens out of what they say.
            if token.special and token_id < vocabulary_size:
                texts[token_id] = b""

        def compiler(vocabulary: list[bytes]) -> xgrammar.GrammarCompiler:
            info = xgrammar.TokenizerInfo(
                vocabulary,
                xgrammar.VocabType.RAW,
                vocab_size=vocabulary_size,
                stop_token_ids=list(eos_token_ids),
                add_prefix_space=seen.add_prefix_space,
            )
            # What is compiled is remembered elsewhere; threads are for the forward pass.
            return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

        self._compiler = compiler(texts)
        # Why: 0.2.8 lets control characters into strings of bounded length, where JSON has none.
        self._json_compiler = compiler([b"" if min(t, default=0) < 0x20 else t for t in texts])

    def compile(self, grammar: Grammar) -> Compiled:
        try:
            compiled = self._compile(grammar)
        except RuntimeError as error:
            fact = _PLACE_IN_ITS_SOURCE.sub("", str(error).strip()).splitlines()[0]
            raise GrammarRefused(fact) from error
        return lambda: _Matcher(compiled)

    def _compile(self, grammar: Grammar) -> xgrammar.CompiledGrammar:
        compiler, source = self._compiler, grammar.source
        match grammar.kind:
            case GrammarKind.JSON_OBJECT:
                return self._schema(_ANY_OBJECT)
            case GrammarKind.JSON_SCHEMA:
                if (keyword := unenforced(json.loads(source))) is not None:
                    raise GrammarRefused(f"{keyword} cannot be enforced")
                return self._schema(source)
            case GrammarKind.REGEX:
                return compiler.compile_regex(source)
            case GrammarKind.EBNF:
                return compiler.compile_grammar(source)
            case GrammarKind.STRUCTURAL_TAG:
                return compiler.compile_structural_tag(json.dumps(_spelled_out(json.loads(source))))

    def _schema(self, source: str) -> xgrammar.CompiledGrammar:
        # Why no free white space: a model that is unsure writes nothing else to its end.
        return self._json_compiler.compile_json_schema(source, any_whitespace=False)
