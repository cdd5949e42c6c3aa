"""Names of processes whose settings have none."""

from __future__ import annotations

import socket

import pytest

from headrace.settings import read
from headrace_scheduler.base.settings import SchedulerSettings


def test_a_process_without_a_name_is_called_as_its_pod_and_else_as_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("POD_NAME", raising=False)
    host = socket.gethostname().partition(".")[0]
    assert read(SchedulerSettings, []).name == host
    monkeypatch.setenv("POD_NAME", "scheduler-7f9c-x2")
    assert read(SchedulerSettings, []).name == "scheduler-7f9c-x2"
    assert read(SchedulerSettings, ["--name", "mine"]).name == "mine"
