"""Compile grammars with llguidance, an optional package: `pip install headrace[llguidance]`."""

from __future__ import annotations

import json
from typing import Any

import llguidance
from llguidance.gbnf_to_lark import gbnf_to_lark
from tokenizers import Tokenizer
from torch import Tensor

from headrace_worker.engine.base.interface import Grammar, GrammarKind
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.grammar.compiler import Compiled, GrammarRefused
from headrace_worker.engine.grammar.schema_translation import parse_schema, schema_to_llguidance
from headrace_worker.engine.grammar.structural_tag_lark import structural_tag_in_lark
from headrace_worker.engine.schema.keywords import SchemaRefused

_JSON: Any = {
    # As xgrammar has it, so that both write the same JSON.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Of several alternatives any one: two that both fit are no reason to refuse.
    "coerce_one_of": True,
}
_WORD = 4


class _Matcher:
    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def fill_bitmask(self, bits: Tensor, row: int) -> None:
        words = bits[row]
        self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), words.numel() * _WORD)
        if self._matcher.is_error():
            # Too complex to go on with; its mask would end the sequence as if it were whole.
            words.zero_()

    def accept(self, token_id: int) -> bool:
        return (
            not self.is_terminated
            and bool(self._matcher.validate_tokens([token_id]))
            and bool(self._matcher.consume_token(token_id))
        )

    @property
    def is_terminated(self) -> bool:
        return self._matcher.is_stopped() and not self._matcher.is_error()


class Llguidance:
    """Compiles for one tokenizer."""

    def __init__(self, files: TokenizerFiles, vocabulary_size: int) -> None:
        eos_token_ids = list(files.eos_token_ids)
        self._tokenizer = llguidance.LLTokenizer(
            files.tokenizer_json.decode(), n_vocab=vocabulary_size, eos_token=eos_token_ids
        )
        added = Tokenizer.from_buffer(files.tokenizer_json).get_added_tokens_decoder().values()
        self._marks = frozenset(token.content for token in added)

    def compile(self, grammar: Grammar) -> Compiled:
        try:
            source = self._source(grammar)
        except (ValueError, SchemaRefused) as error:
            raise GrammarRefused(str(error)) from error
        first = llguidance.LLMatcher(self._tokenizer, source, log_level=0)
        if first.is_error():
            raise GrammarRefused(first.get_error().strip().splitlines()[0])
        return lambda: _Matcher(first.deep_copy())

    def _source(self, grammar: Grammar) -> str:
        matcher = llguidance.LLMatcher
        match grammar.kind:
            case GrammarKind.JSON_OBJECT:
                any_object = schema_to_llguidance({"type": "object"})
                return matcher.grammar_from_json_schema(any_object, overrides=_JSON)
            case GrammarKind.JSON_SCHEMA:
                schema = schema_to_llguidance(parse_schema(grammar.source))
                return matcher.grammar_from_json_schema(schema, overrides=_JSON)
            case GrammarKind.REGEX:
                return matcher.grammar_from_regex(grammar.source)
            case GrammarKind.EBNF:
                return matcher.grammar_from_lark(gbnf_to_lark(grammar.source))
            case GrammarKind.STRUCTURAL_TAG:
                return structural_tag_in_lark(json.loads(grammar.source), self._marks, _JSON)
