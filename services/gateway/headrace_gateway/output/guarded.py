"""Goes on with plain text where a parser fails: an output is not lost for what takes it apart."""

from __future__ import annotations

import logging

from headrace_gateway.parsers.pieces import Parser, Piece

log = logging.getLogger(__name__)


class GuardedParser:
    """A parser whose error ends the search and not the answer."""

    def __init__(self, parser: Parser) -> None:
        self._parser: Parser | None = parser

    @property
    def reasons(self) -> bool:
        return self._parser is not None and self._parser.reasons

    def feed(self, text: str) -> list[Piece]:
        if self._parser is not None:
            try:
                return self._parser.feed(text)
            except Exception as error:  # noqa: BLE001
                self._give_up(error)
        return [text] if text else []

    def flush(self) -> list[Piece]:
        if self._parser is not None:
            try:
                return self._parser.flush()
            except Exception as error:  # noqa: BLE001
                self._give_up(error)
        return []

    def _give_up(self, error: Exception) -> None:
        # Why no traceback: an error of a parser quotes what the model has written.
        log.error("output.parser_failed", extra={"error": type(error).__name__})
        self._parser = None
