"""The answer to a row, as it is collected from its endpoint, or made of why there is none."""

from __future__ import annotations

from typing import Any

from headrace.errors import HeadraceError, InvalidRequest
from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace.rpc.channels import MAX_MESSAGE_BYTES
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import OPENAI_ERRORS
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.base.calls import BatchRow
from headrace_gateway.resume.row_retries import RETRY_S, retry_after_s

MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
"""Of a row, so that its message has room for the rest."""


def not_answered(row: BatchRow, error: HeadraceError) -> RowAnswer:
    """Return the answer to a row that has none here, and may have one elsewhere or later."""
    response = OPENAI_ERRORS.error_response(error, row.name)
    return _answer(row, response.status, response.body, row.name, after_s=RETRY_S)


class RowReply(Reply):
    """Collects the response to a row."""

    def __init__(self, row: BatchRow) -> None:
        self._row, self._written, self.counter = row, _Written(), CallCounter("batch")
        super().__init__(self._written, OPENAI_ERRORS, row.name, self.counter)
        self._retry_after_s: float | None = None

    async def fail(
        self, error: HeadraceError, usage: Usage | None = None, so_far: bytes = b""
    ) -> None:
        self._retry_after_s = retry_after_s(error)
        await super().fail(error, usage, so_far)

    def answer(self) -> RowAnswer:
        """Return what has been sent."""
        written = self._written
        if (size := len(written.body)) > MAX_ANSWER_BYTES:
            # Control could not receive it, and would send the row again and again.
            too_large = OPENAI_ERRORS.error_response(
                InvalidRequest(
                    f"the answer has {size} bytes; a row's may have {MAX_ANSWER_BYTES}. Use several"
                    " rows for it"
                ),
                self.request_id,
            )
            written.status, written.body = too_large.status, bytearray(too_large.body)
        after_s = self._retry_after_s
        found = _answer(
            self._row, written.status, bytes(written.body), self.request_id, after_s=after_s
        )
        if written.status == 200 and self.usage is not None:
            found.usage.CopyFrom(self.usage)
        return found


def _answer(
    row: BatchRow, status: int, body: bytes, request_id: str, *, after_s: float | None
) -> RowAnswer:
    found = RowAnswer(
        batch_id=row.batch_id, line=row.line, status=status, body=body, request_id=request_id
    )
    if after_s is not None:
        found.retry_after.FromNanoseconds(int(after_s * 1e9))
    return found


class _Written:
    """A response as it is written, in pieces."""

    def __init__(self) -> None:
        self.status = 200
        self.body = bytearray()

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        self.status = int(dict(metadata).get("x-hr-status", self.status))

    async def write(self, message: Any, /) -> None:
        self.body += message.data
