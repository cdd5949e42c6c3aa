"""Compile grammars with xgrammar."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import xgrammar
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from headrace_worker.engine.base.interface import Grammar, GrammarKind
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.grammar.compiler import Compiled, GrammarRefused
from headrace_worker.engine.grammar.schema_translation import (
    parse_schema,
    schema_to_gbnf,
    translate_tag_schema,
)
from headrace_worker.engine.schema.keywords import SchemaRefused

_MOST_COMPILERS = 8
"""Each holds the vocabulary once more."""
_PLACE_IN_ITS_SOURCE = re.compile(r"^\[[\d:]+\] \S+\.cc:\d+: ")


def _with_grammars(shape: Any) -> Any:
    """Replace the schemas in a structural tag by grammars.

    Why: so that schemas mean the same there as elsewhere.
    """
    if isinstance(shape, list):
        return [_with_grammars(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    if shape.get("type") == "json_schema" and shape.get("style", "json") == "json":
        return {"type": "grammar", "grammar": translate_tag_schema(shape, schema_to_gbnf)}
    try:
        return {name: _with_grammars(each) for name, each in shape.items()}
    except SchemaRefused as refusal:
        if shape.get("type") != "tag":
            raise
        raise SchemaRefused(f"{refusal}, after {json.dumps(shape.get('begin'))}") from refusal


class _Matcher:
    def __init__(self, compiled: xgrammar.CompiledGrammar) -> None:
        self._matcher = xgrammar.GrammarMatcher(compiled)

    def fill_bitmask(self, bits: Tensor, row: int) -> None:
        self._matcher.fill_next_token_bitmask(bits, row)

    def accept(self, token_id: int) -> bool:
        return not self.is_terminated and self._matcher.accept_token(token_id)

    @property
    def is_terminated(self) -> bool:
        return self._matcher.is_terminated()


class Xgrammar:
    """Compiles for one tokenizer."""

    def __init__(self, files: TokenizerFiles, vocabulary_size: int) -> None:
        """The tokenizer has at least one end-of-sequence token, to follow a complete output."""
        tokenizer, eos_token_ids = Tokenizer.from_buffer(files.tokenizer_json), files.eos_token_ids
        seen = xgrammar.TokenizerInfo.from_huggingface(
            PreTrainedTokenizerFast(tokenizer_object=tokenizer),  # type: ignore[no-untyped-call]
            vocab_size=vocabulary_size,
            stop_token_ids=list(eos_token_ids),
        )
        self._texts, self._vocabulary_size = list(seen.decoded_vocab), vocabulary_size
        self._eos_token_ids, self._adds_space = list(eos_token_ids), seen.add_prefix_space
        added = tokenizer.get_added_tokens_decoder().items()
        self._special_ids = {i for i, each in added if each.special and i < vocabulary_size}
        self._compilers: dict[frozenset[int], xgrammar.GrammarCompiler] = {}
        self._lock = threading.Lock()
        self._compiler_for(frozenset())

    def _compiler_for(self, mark_ids: frozenset[int]) -> xgrammar.GrammarCompiler:
        """Return a compiler by which these special tokens, and no others, have texts.

        Why: they would let "<|user|>" into a JSON string by the token of that name, and gateways
        leave special tokens out of the text.
        """
        with self._lock:
            known = self._compilers.get(mark_ids)
            if known is None:
                if len(self._compilers) > _MOST_COMPILERS:
                    raise GrammarRefused(f"more than {_MOST_COMPILERS} sets of marks are in use")
                known = self._compilers[mark_ids] = self._new_compiler(mark_ids)
        return known

    def _new_compiler(self, mark_ids: frozenset[int]) -> xgrammar.GrammarCompiler:
        texts = self._texts.copy()
        for token_id in self._special_ids - mark_ids:
            texts[token_id] = b""
        info = xgrammar.TokenizerInfo(
            texts,
            xgrammar.VocabType.RAW,
            vocab_size=self._vocabulary_size,
            stop_token_ids=self._eos_token_ids,
            add_prefix_space=self._adds_space,
        )
        # What is compiled is remembered elsewhere; threads are for the forward pass.
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(self, grammar: Grammar) -> Compiled:
        try:
            compiled = self._compile(grammar)
        except SchemaRefused as refusal:
            raise GrammarRefused(str(refusal)) from refusal
        except RuntimeError as error:
            fact = _PLACE_IN_ITS_SOURCE.sub("", str(error).strip()).splitlines()[0]
            raise GrammarRefused(fact) from error
        return lambda: _Matcher(compiled)

    def _compile(self, grammar: Grammar) -> xgrammar.CompiledGrammar:
        compiler, source = self._compiler_for(grammar.mark_ids), grammar.source
        match grammar.kind:
            case GrammarKind.JSON_OBJECT:
                return compiler.compile_grammar(schema_to_gbnf({"type": "object"}))
            case GrammarKind.JSON_SCHEMA:
                return compiler.compile_grammar(schema_to_gbnf(parse_schema(source)))
            case GrammarKind.REGEX:
                return compiler.compile_regex(source)
            case GrammarKind.EBNF:
                return compiler.compile_grammar(source)
            case GrammarKind.STRUCTURAL_TAG:
                return compiler.compile_structural_tag(
                    json.dumps(_with_grammars(json.loads(source)))
                )
