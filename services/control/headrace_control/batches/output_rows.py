"""Lines of output and error files, as OpenAI has them. Pure."""

from __future__ import annotations

import json

from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace.v1.common_pb2 import Usage
from headrace_control.base.batches import CANCELLED, EXPIRED, FinishedRow, RowUsage
from headrace_control.batches.input_rows import InputRow

_NOT_RUN = {
    EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    CANCELLED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}


def finished_row(batch_id: str, row: InputRow, given: RowAnswer) -> FinishedRow:
    """Return a row with its answer, which is as its endpoint has given it."""
    succeeded, text = given.status == 200, given.body.decode()
    if "\n" in text:
        text = json.dumps(json.loads(text))
    # Why spliced: numbers of a vector stay as they were written.
    answer = (
        f'{{"status_code": {given.status}, "request_id": {json.dumps(given.request_id)},'
        f' "body": {text}}}'
    )
    text = _line(batch_id, row.line, row.custom_id, answer, "null")
    return FinishedRow(row.line, succeeded, text, _usage(given.usage))


def row_not_run(batch_id: str, line: int, custom_id: str, outcome: str) -> str:
    """Return the line of a row that did not run before its batch ended in this way."""
    code, message = _NOT_RUN[outcome]
    error = json.dumps({"code": code, "message": message})
    return _line(batch_id, line, custom_id, "null", error)


def _line(batch_id: str, line: int, custom_id: str, response: str, error: str) -> str:
    row_id = f"batch_req_{batch_id.removeprefix('batch_')}_{line}"
    return (
        f'{{"id": "{row_id}", "custom_id": {json.dumps(custom_id)}, "response": {response},'
        f' "error": {error}}}'
    )


def _usage(usage: Usage) -> RowUsage:
    return RowUsage(usage.prompt_tokens, usage.cached_prompt_tokens, usage.output_tokens)
