"""Compile grammars with xgrammar."""

from __future__ import annotations

import json
import re
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
        texts = list(seen.decoded_vocab)
        for token_id, token in tokenizer.get_added_tokens_decoder().items():
            # Why: it would let "<|user|>" into a JSON string by the token of that name, and
            # gateways leave special tokens out of the text.
            if token.special and token_id < vocabulary_size:
                texts[token_id] = b""

        info = xgrammar.TokenizerInfo(
            texts,
            xgrammar.VocabType.RAW,
            vocab_size=vocabulary_size,
            stop_token_ids=list(eos_token_ids),
            add_prefix_space=seen.add_prefix_space,
        )
        # What is compiled is remembered elsewhere; threads are for the forward pass.
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

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
        compiler, source = self._compiler, grammar.source
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
