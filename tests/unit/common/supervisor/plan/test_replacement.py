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
    patience: ReplacementPolicy, faults: Sequence[Fault | None], *, from_s: float = 0.0
) -> list[int]:
    """One look a second; the seconds at which the run is replaced."""
    return [n for n, fault in enumerate(faults) if patience.is_over(fault, from_s + n)]


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


def test_a_process_that_has_been_well_for_long_is_replaced_promptly_again() -> None:
    patience = ReplacementPolicy()
    replaced_at(patience, [BROKEN] * 20)
    well = int(STEADY_S) + 1
    assert replaced_at(patience, [*[None] * well, *[BROKEN] * 4], from_s=20) == [well + 3]


def test_what_was_seen_before_the_supervisor_stood_still_does_not_count() -> None:
    patience = ReplacementPolicy()
    replaced_at(patience, [HANGS] * 20)
    assert replaced_at(patience, [HANGS] * 20, from_s=100) == []
