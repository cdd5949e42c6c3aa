"""What the run of a client's tests counts as, and which clients there are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clients.environments import clients
from clients.run import LIGHT, counted

CASE = '<testcase name="a">{}</testcase>'
PASSED, SKIPPED, FAILED = (CASE.format(inside) for inside in ("", "<skipped/>", "<failure/>"))


@pytest.mark.parametrize(
    ("cases", "status", "counts", "good"),
    [
        ([PASSED, PASSED], 0, (2, 0, 0), True),
        ([PASSED, SKIPPED], 0, (1, 0, 1), True),
        ([PASSED, FAILED, CASE.format("<error/>")], 1, (1, 2, 0), False),
        ([], 5, (0, 1, 0), False),
        ([PASSED], 1, (1, 1, 0), False),
    ],
    ids=["passed", "skipped", "failed", "nothing ran", "broke off"],
)
def test_a_run_counts_as_its_cases_and_its_status_say(
    tmp_path: Path, cases: list[str], status: int, counts: tuple[int, int, int], good: bool
) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(f"<testsuites>{''.join(cases)}</testsuites>")
    ran = subprocess.CompletedProcess(["pytest"], status, "what it printed")
    outcome = counted("llm", report, 1.0, ran)
    assert (outcome.passed, outcome.failed, outcome.skipped) == counts
    assert outcome.is_good == good
    assert bool(outcome.text) == bool(counts[1] or counts[2])


def test_a_run_that_left_no_report_failed(tmp_path: Path) -> None:
    ran = subprocess.CompletedProcess(["node"], 0, "")
    assert not counted("ai_sdk", tmp_path / "junit.xml", 1.0, ran).is_good


def test_every_client_is_locked_and_the_light_ones_are_there() -> None:
    found = {client.name: client for client in clients()}
    assert set(LIGHT) <= found.keys()
    assert all(client.versions() for client in found.values())
