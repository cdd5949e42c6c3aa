"""What is shown of a batch that is waited for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console

from headrace.cli.requests.batch_progress import BatchProgress, wait_for_end

ID = "batch_1f"


def batch(status: str, done: int = 0, total: int = 0, failed: int = 0) -> dict[str, Any]:
    counts = {"completed": done - failed, "failed": failed, "total": total}
    return {"id": ID, "status": status, "request_counts": counts}


def test_a_log_has_a_line_for_each_status_and_one_every_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    with BatchProgress(ID, console=Console(file=io.StringIO()), clock=lambda: now_s) as shown:
        shown.update(batch("validating"))
        for now_s in range(1, 61):
            shown.update(batch("in_progress", now_s, 100, failed=int(now_s > 40)))
        shown.update(batch("completed", 100, 100))
    assert capsys.readouterr().err.splitlines() == [
        f"{ID}: validating",
        f"{ID}: in_progress, 1/100 rows",
        f"{ID}: in_progress, 31/100 rows, 0:01:09 left",
        f"{ID}: completed, 100/100 rows",
    ]


def test_a_terminal_has_one_line_that_changes(capsys: pytest.CaptureFixture[str]) -> None:
    shown_on = io.StringIO()
    terminal = Console(file=shown_on, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    with BatchProgress(ID, console=terminal) as shown:
        shown.update(batch("in_progress", 50, 200, failed=2))
    assert f"{ID} in_progress" in shown_on.getvalue()
    assert "50/200 rows, 2 failed" in shown_on.getvalue()
    assert capsys.readouterr().err == ""


def test_a_mesh_that_cannot_be_reached_for_a_while_does_not_end_the_wait() -> None:
    answers: Iterator[httpx.Response | Exception] = iter(
        [
            httpx.ConnectError("refused"),
            httpx.Response(503, json={"error": {"code": "no_worker", "message": "", "param": ""}}),
            httpx.Response(200, json=batch("in_progress", 1, 2)),
            httpx.Response(200, json=batch("expired", 1, 2)),
        ]
    )
    waited_s: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/v1/batches/{ID}"
        given = next(answers)
        if isinstance(given, Exception):
            raise given
        return given

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://mesh") as http:
        found = wait_for_end(http, batch("validating"), sleep=waited_s.append)
    assert found["status"] == "expired"
    assert len(waited_s) == 4
