"""A test that cannot run is skipped, and fails where its kind of environment is required."""

from __future__ import annotations

import pytest

from helpers.environment import KINDS, lacks, needs_command, required_kinds


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_not_required_is_skipped_by_its_name(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception, match=kind):
        lacks(kind)


def test_a_required_kind_that_is_absent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REQUIRE", "node, netns")
    assert required_kinds() == {"node", "netns"}
    with pytest.raises(pytest.fail.Exception, match="netns"):
        lacks("netns", "ip: not permitted")
    with pytest.raises(pytest.skip.Exception):
        lacks("gpu")


def test_a_command_is_found_or_its_kind_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HEADRACE_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception):
        needs_command("openssl")


def test_an_unknown_kind_is_a_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REQUIRE", "netsn")
    with pytest.raises(pytest.UsageError, match="netsn"):
        required_kinds()
