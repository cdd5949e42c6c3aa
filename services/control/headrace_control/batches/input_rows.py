"""Rows of an input file: what a line must be, and what is wrong with one that is not. Pure.

    {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", …}}

A batch may name several models, and each row is checked against the models that its owner may use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic_core import from_json, to_json

from headrace_control.base.batches import MAX_REPORTED_ERRORS, MAX_ROWS, BatchError
from headrace_control.batches.lines import MAX_LINE_BYTES

MAX_ID_CHARACTERS = 512
MAX_MODELS, MAX_MODEL_CHARACTERS = 100, 256
"""Of one batch: gateways are asked about all of them in one message."""
_DIGEST_BYTES = 16
_NOT_A_NUMBER = b"Infinity"
"""What numbers such as 1e999 are written as."""
_RESPONSES = "/v1/responses"
_REFUSED_TRUE = ("stream", "background")
"""Fields of a body that mean that a client reads along, or comes back."""


@dataclass(frozen=True, slots=True)
class InputRow:
    line: int
    custom_id: str
    model: str
    body: bytes
    """JSON, for the endpoint."""


class InvalidRow(Exception):
    """A line is no row of the batch."""

    def __init__(self, code: str, message: str, param: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param

    def at(self, line: int) -> BatchError:
        return BatchError(self.code, self.message, self.param, line)


def parse_row(line: int, content: bytes | None, endpoint: str) -> InputRow:
    """Return the row of a line; `content` is None of a line that is too long.

    Raises:
        InvalidRow: it is none for this endpoint.
    """
    if content is None:
        raise InvalidRow("line_too_long", "This line is longer than 8 MiB.")
    try:
        # Why not json's: how deep a line it can read depends on its caller, so what was valid once
        # might not be valid when it is read again.
        row = from_json(content, allow_inf_nan=False)
    except ValueError:
        raise InvalidRow("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(row, dict):
        raise InvalidRow("invalid_json_line", "This line is not a JSON object.")
    custom_id = _text(row, "custom_id")
    if not 1 <= len(custom_id) <= MAX_ID_CHARACTERS:
        fact = f"custom_id has {len(custom_id)} characters; it may have 1 to {MAX_ID_CHARACTERS}."
        raise InvalidRow("invalid_custom_id", fact, "custom_id")
    if (method := _text(row, "method")) != "POST":
        raise InvalidRow("invalid_method", f"method is {method[:40]!r}; it must be POST.", "method")
    if (url := _text(row, "url")) != endpoint:
        fact = f"url is {url[:80]!r}; the batch is for {endpoint}, and so are all of its rows."
        raise InvalidRow("mismatched_endpoint", fact, "url")
    return InputRow(line, custom_id, *_body(row, endpoint))


def _body(row: dict[str, Any], endpoint: str) -> tuple[str, bytes]:
    if "body" not in row:
        raise InvalidRow("missing_required_parameter", "body is missing.", "body")
    if not isinstance(body := row["body"], dict):
        raise InvalidRow("invalid_body", "body must be a JSON object.", "body")
    for name in _REFUSED_TRUE:
        if body.get(name) not in (None, False):
            fact = f"{name} is set; a row of a batch has one whole answer."
            raise InvalidRow("unsupported_parameter", fact, f"body.{name}")
    if endpoint == _RESPONSES and body.get("conversation") is not None:
        fact = "conversation is set; a response of a batch is not stored, and is in none."
        raise InvalidRow("unsupported_parameter", fact, "body.conversation")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRow("missing_required_parameter", "body.model is missing.", "body.model")
    if len(model) > MAX_MODEL_CHARACTERS:
        fact = f"body.model has {len(model)} characters; it may have {MAX_MODEL_CHARACTERS}."
        raise InvalidRow("model_not_found", fact, "body.model")
    return model, _compact(body)


def _compact(body: dict[str, Any]) -> bytes:
    content = to_json(body)
    if _NOT_A_NUMBER in content and not _is_finite(body):
        raise InvalidRow("invalid_body", "body has a number that is too large.", "body")
    # Numbers such as 1e15 are longer here, and a gateway would refuse the message.
    if len(content) > MAX_LINE_BYTES:
        raise InvalidRow("line_too_long", "body is longer than 8 MiB.", "body")
    return content


def _is_finite(body: dict[str, Any]) -> bool:
    """Return whether all numbers are; `Infinity` may be the content of a text as well."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        return False
    return True


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise InvalidRow("missing_required_parameter", f"{name} is missing.", name)
    if not isinstance(value, str):
        raise InvalidRow("invalid_type", f"{name} must be a string.", name)
    return value


class InputCheck:
    """Checks the lines of one file, one after the other; it keeps 16 bytes of each custom_id.

    What is wrong with models is only known once they have all been named: `models` are those, and
    `report_models` is called with which of them may not be used.
    """

    def __init__(self, endpoint: str, *, max_rows: int = MAX_ROWS) -> None:
        self._endpoint, self._max_rows = endpoint, max_rows
        self._ids: set[bytes] = set()
        self._errors: list[BatchError] = []
        self._first_lines: dict[str, list[int]] = {}
        self.rows = 0

    @property
    def models(self) -> tuple[str, ...]:
        """Names of models, in the order of their first rows."""
        return tuple(self._first_lines)

    @property
    def is_over(self) -> bool:
        """Whether no further line need be checked."""
        return len(self._errors) >= MAX_REPORTED_ERRORS or self.rows > self._max_rows

    def add(self, line: int, content: bytes | None) -> None:
        """Check the next line that is not blank."""
        self.rows += 1
        if self.rows > self._max_rows:
            fact = f"The batch has more rows than it may have, which is {self._max_rows}."
            self._errors.append(BatchError("too_many_rows", fact, line=line))
            return
        try:
            row = parse_row(line, content, self._endpoint)
            self._note_id(row.custom_id)
        except InvalidRow as invalid:
            self._errors.append(invalid.at(line))
            return
        if row.model not in self._first_lines and len(self._first_lines) >= MAX_MODELS:
            fact = f"The batch names more models than it may, which is {MAX_MODELS}."
            self._errors.append(BatchError("too_many_models", fact, "body.model", line))
            return
        lines = self._first_lines.setdefault(row.model, [])
        if len(lines) < MAX_REPORTED_ERRORS:
            lines.append(line)

    def _note_id(self, custom_id: str) -> None:
        digest = blake2b(custom_id.encode(), digest_size=_DIGEST_BYTES).digest()
        if digest in self._ids:
            fact = f"The custom_id {custom_id[:80]!r} is that of an earlier line as well."
            raise InvalidRow("duplicate_custom_id", fact, "custom_id")
        self._ids.add(digest)

    def errors(self, refusals: dict[str, str]) -> tuple[BatchError, ...]:
        """Return what is wrong with the file, in the order of its lines.

        Args:
            refusals: of models that may not be used, why.
        """
        if not self.rows:
            return (BatchError("empty_file", "The input file has no rows."),)
        found = [*self._errors, *self._of_models(refusals)]
        return tuple(sorted(found, key=lambda error: error.line)[:MAX_REPORTED_ERRORS])

    def _of_models(self, refusals: dict[str, str]) -> Iterator[BatchError]:
        for model, message in refusals.items():
            for line in self._first_lines[model]:
                yield BatchError("model_not_found", message, "body.model", line)
