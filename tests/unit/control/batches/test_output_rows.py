"""Lines of output and error files."""

from __future__ import annotations

import json

from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace.v1.common_pb2 import Usage
from headrace_control.base.batches import EXPIRED, RowUsage
from headrace_control.batches.input_rows import InputRow
from headrace_control.batches.output_rows import finished_row, row_not_run

ROW = InputRow(7, 'my "id"', "m", b"{}")


def test_an_answer_is_written_as_it_was_given() -> None:
    body = b'{"x":0.10}'
    usage = Usage(prompt_tokens=5, cached_prompt_tokens=4, output_tokens=2)
    answer = RowAnswer(status=200, body=body, request_id="batch_1f_7", usage=usage)
    row = finished_row("batch_1f", ROW, answer)
    assert (row.line, row.succeeded) == (7, True)
    assert body.decode() in row.text
    assert row.usage == RowUsage(5, 4, 2, 0)
    written = json.loads(row.text)
    assert (written["id"], written["custom_id"], written["error"]) == (
        "batch_req_1f_7",
        'my "id"',
        None,
    )
    response_json = written["response"]
    assert (response_json["status_code"], response_json["request_id"]) == (200, "batch_1f_7")


def test_a_row_that_failed_has_its_error_as_a_response_and_uses_nothing() -> None:
    body = b'{"error":{"message":"no",\n"code":"invalid_request"}}'
    row = finished_row("batch_1f", ROW, RowAnswer(status=400, body=body))
    assert (row.succeeded, row.usage) == (False, RowUsage())
    assert "\n" not in row.text
    written = json.loads(row.text)
    assert written["response"]["body"]["error"]["code"] == "invalid_request"
    assert (written["response"]["status_code"], written["error"]) == (400, None)


def test_a_row_that_did_not_run_says_so() -> None:
    written = json.loads(row_not_run("batch_1f", 7, "a", EXPIRED))
    assert (written["custom_id"], written["response"]) == ("a", None)
    assert written["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }
