"""Batches as control keeps them: their states, and what each state may become. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.errors import InvalidRequest
from headrace_control.base.files import FileLimits

MAX_ROWS = 50_000
MAX_REPORTED_ERRORS = 100
"""Of one input file; the others are not looked for."""
ENDPOINTS = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/embeddings": "embed",
    "/v1/responses": "generate",
}
"""Paths that rows may be for, and the scope that each needs."""
MAX_WINDOW_S = 7 * 24 * 3600
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([mh])")
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512

VALIDATING, FAILED = "validating", "failed"
IN_PROGRESS, FINALIZING, COMPLETED, EXPIRED = "in_progress", "finalizing", "completed", "expired"
CANCELLING, CANCELLED = "cancelling", "cancelled"
MOVES: Mapping[str, frozenset[str]] = {
    VALIDATING: frozenset({FAILED, IN_PROGRESS, CANCELLING}),
    IN_PROGRESS: frozenset({FINALIZING, CANCELLING}),
    FINALIZING: frozenset({COMPLETED, EXPIRED, FAILED}),
    CANCELLING: frozenset({CANCELLED}),
    FAILED: frozenset(),
    COMPLETED: frozenset(),
    EXPIRED: frozenset(),
    CANCELLED: frozenset(),
}
"""OpenAI's states, and what each may become."""
FINAL = frozenset(status for status, moves in MOVES.items() if not moves)


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why a batch cannot run, or stopped."""

    code: str
    message: str
    param: str = ""
    line: int = 0
    """Of the input file, from 1 on; 0: of none."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has created a batch: its rows run on this caller's behalf."""

    tenant: str
    key_id: str = ""
    person: str = ""
    scopes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewBatch:
    owner: Owner
    endpoint: str
    input_file_id: str
    window: str
    """As "24h"."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_expires_s: int | None = None
    """How long its files are kept; None: until they are deleted."""
    idempotency_key: str = ""
    """Another batch of the tenant with this key is not created; empty: none."""


@dataclass(frozen=True, slots=True)
class RowUsage:
    """Tokens of rows."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, those that were not computed."""
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: RowUsage) -> RowUsage:
        return RowUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class FinishedRow:
    line: int
    succeeded: bool
    """It belongs into the output file, else into the error file."""
    text: str
    """Its line of that file, without the line's end."""
    usage: RowUsage = RowUsage()

    @property
    def stored_bytes(self) -> int:
        """Return what it adds to its file."""
        return len(self.text.encode()) + 1


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: str
    """batch_<16 of 0-9 a-z>."""
    new: NewBatch
    status: str
    times: Mapping[str, datetime]
    """When each status began, by its name."""
    expire_time: datetime
    total: int = 0
    """Rows; 0 before they are validated."""
    completed: int = 0
    failed: int = 0
    fed_line: int = 0
    """No row of a later line was ever called for."""
    outcome: str = ""
    """The status in which it will end: rows that finish now are dropped. Empty: that is open."""
    output_file_id: str = ""
    """Set with the outcome, as the next, whether there will be such a file or not."""
    error_file_id: str = ""
    has_output: bool = False
    """There is an output file."""
    has_errors: bool = False
    errors: tuple[BatchError, ...] = ()
    usage: RowUsage = field(default_factory=RowUsage)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class Closing:
    """How a batch will end; nothing changes that."""

    outcome: str
    output_file_id: str
    error_file_id: str
    errors: tuple[BatchError, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchLimits:
    rows_per_batch: int
    """That run or wait to run again, at a time."""
    rows_in_all: int
    """That run at a time, of all batches."""
    batches: int
    """That are worked on at a time, the oldest first."""
    retry_s: float = 0.5
    """Before what failed for want of anything is tried again, unless it says when."""
    poll_s: float = 1.0
    """Between two looks for batches."""
    files: FileLimits | None = None
    """Within which output is written; None: without bounds."""
    group_s: float = 0.5
    """How long the first row of a transaction waits for others, unless there are none any more. A
    transaction costs as much as some fifty rows."""


def window_s(window: str) -> int:
    """Return a completion window in seconds: OpenAI's "24h", or other minutes or hours.

    Raises:
        InvalidRequest: it is none, or longer than MAX_WINDOW_S.
    """
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * {"m": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InvalidRequest(
            f"completion_window is {window[:40]!r}; it must be minutes or hours up to"
            f' {MAX_WINDOW_S // 3600} hours, as "24h"',
            field="completion_window",
        )
    return seconds


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check the metadata of a batch against OpenAI's bounds.

    Raises:
        InvalidRequest: it has too many pairs, or one is too long.
    """
    if len(metadata) > _MAX_PAIRS:
        raise InvalidRequest(
            f"metadata has {len(metadata)} pairs; it may have {_MAX_PAIRS}", field="metadata"
        )
    for key, value in metadata.items():
        if not 1 <= len(key) <= _MAX_KEY or len(value) > _MAX_VALUE:
            raise InvalidRequest(
                f"metadata has the key {key[:80]!r} with {len(value)} characters; keys may have 1"
                f" to {_MAX_KEY} characters, and values {_MAX_VALUE}",
                field="metadata",
            )
