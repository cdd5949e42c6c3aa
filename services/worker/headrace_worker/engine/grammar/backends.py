"""Who compiles a model's grammars, by the name that the settings give."""

from __future__ import annotations

import logging

from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.grammar.compiler import CompileFunction

log = logging.getLogger(__name__)


class BackendMissing(Exception):
    """The wanted library is not installed; the text says how to get it."""


def compiler_for(
    name: str, tokenizer: TokenizerFiles, vocabulary_size: int
) -> CompileFunction | None:
    """None where the model cannot follow grammars: it has no token that ends its output.

    Raises:
        BackendMissing: `llguidance` was asked for and is not installed.
    """
    if not tokenizer.eos_token_ids:
        log.warning("grammars.off", extra={"why": "the model has no end-of-sequence token"})
        return None
    # Why here: what is not asked for need not be installed.
    if name == "llguidance":
        try:
            from headrace_worker.engine.grammar.llguidance_backend import Llguidance
        except ImportError as error:
            raise BackendMissing(
                f"grammar_backend llguidance: {error}; pip install 'headrace[llguidance]'"
            ) from error
        return Llguidance(
            tokenizer.tokenizer_json,
            vocabulary_size=vocabulary_size,
            eos_token_ids=tokenizer.eos_token_ids,
        ).compile
    from headrace_worker.engine.grammar.xgrammar_backend import Xgrammar

    return Xgrammar(
        tokenizer.tokenizer_json,
        vocabulary_size=vocabulary_size,
        eos_token_ids=tokenizer.eos_token_ids,
    ).compile
