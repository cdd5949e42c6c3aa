"""When a process that does not do its work is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from headrace.supervisor.plan.backoff import STEADY_S
from headrace.supervisor.plan.replacement import Fault, ReplacementPolicy

HANGS = Fault("does not answer", 30.0)
BROKEN = Fault("cannot store", 3.0)
ON_FULL_DISK = Fault("cannot store: no space left on device", None)


def replaced_at(
    policy: ReplacementPolicy, faults: Sequence[Fault | None], *, from_s: float = 0.0
) -> list[int]:
    """Return the seconds at which the run is replaced, with one probe a second."""
    return [n for n, fault in enumerate(faults) if policy.should_replace(fault, from_s + n)]


def test_a_process_is_replaced_once_its_fault_has_lasted() -> None:
    assert replaced_at(ReplacementPolicy(), [HANGS] * 31) == [30]


def test_a_freeze_that_passes_replaces_nothing() -> None:
    assert replaced_at(ReplacementPolicy(), [*[HANGS] * 29, None, *[HANGS] * 29]) == []


def test_a_fault_that_another_run_would_have_too_replaces_nothing() -> None:
    assert replaced_at(ReplacementPolicy(), [ON_FULL_DISK] * 1000) == []


def test_a_broken_broker_is_replaced_as_soon_as_its_disk_takes_files_again() -> None:
    assert replaced_at(ReplacementPolicy(), [*[ON_FULL_DISK] * 60, BROKEN]) == [60]


def test_replacements_that_do_not_help_become_rarer() -> None:
    at = replaced_at(ReplacementPolicy(), [BROKEN] * 60)
    assert [after - before for before, after in pairwise(at)] == [7, 13, 25]


def test_a_process_that_has_been_healthy_for_long_is_replaced_promptly_again() -> None:
    policy = ReplacementPolicy()
    replaced_at(policy, [BROKEN] * 20)
    healthy = int(STEADY_S) + 1
    assert replaced_at(policy, [*[None] * healthy, *[BROKEN] * 4], from_s=20) == [healthy + 3]


def test_probes_before_the_supervisor_was_stopped_do_not_count() -> None:
    policy = ReplacementPolicy()
    replaced_at(policy, [HANGS] * 20)
    assert replaced_at(policy, [HANGS] * 20, from_s=100) == []
