"""Choose the grammar library by the setting `grammar_backend`."""

from __future__ import annotations

import logging

from headrace_worker.engine.base.loaded_model import LoadFailed, TokenizerFiles
from headrace_worker.engine.grammar.compiler import CompileFunction

log = logging.getLogger(__name__)


class BackendMissing(LoadFailed):
    """The library is not installed; the message gives the command that installs it."""


def compiler_for(name: str, files: TokenizerFiles, vocabulary_size: int) -> CompileFunction | None:
    """Return the compile function; None if the model has no end-of-sequence token.

    Raises:
        BackendMissing: `llguidance` is not installed.
    """
    if not files.eos_token_ids:
        log.warning("grammars.disabled", extra={"reason": "the model has no end-of-sequence token"})
        return None
    # Why here: a library that is not configured need not be installed.
    if name == "llguidance":
        try:
            from headrace_worker.engine.grammar.llguidance_backend import Llguidance
        except ImportError as error:
            raise BackendMissing(
                f"grammar_backend llguidance: {error}; pip install 'headrace[llguidance]'"
            ) from error
        return Llguidance(files, vocabulary_size).compile
    from headrace_worker.engine.grammar.xgrammar_backend import Xgrammar

    return Xgrammar(files, vocabulary_size).compile
