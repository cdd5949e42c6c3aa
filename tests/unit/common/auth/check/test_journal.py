"""What a process reports of its callers."""

from __future__ import annotations

from headrace.auth.check.journal import MAX_USES, NOTED_EVERY_MS, AccessJournal
from headrace.internal.v1.access_pb2 import KeyDigest


def test_nothing_new_makes_no_report() -> None:
    assert AccessJournal().take("g-1", 0) is None


def test_a_use_is_noted_at_most_every_ten_seconds() -> None:
    journal = AccessJournal()
    assert journal.is_due("k", 1000)
    journal.use("k", "192.0.2.1", 1000, KeyDigest(pepper_id="new"))
    assert not journal.is_due("k", 1000 + NOTED_EVERY_MS - 1)
    assert journal.is_due("k", 1000 + NOTED_EVERY_MS)
    report = journal.take("g-1", 2000)
    assert report is not None
    assert (report.gateway_id, report.sequence) == ("g-1", 1)
    (use,) = report.uses
    assert (use.key_id, use.last_used_ms, use.client) == ("k", 1000, "192.0.2.1")
    assert use.renewed.pepper_id == "new"
    assert not journal.is_due("k", 3000)


def test_each_report_has_the_next_sequence_and_only_what_is_new() -> None:
    journal = AccessJournal()
    journal.use("k", "", 1000)
    journal.fail("192.0.2.1", "unknown", "k2", 1000)
    first = journal.take("g-1", 1000)
    assert first is not None
    assert len(first.failures) == 1
    assert journal.take("g-1", 1000) is None
    journal.fail("192.0.2.1", "unknown", "k2", 2000)
    second = journal.take("g-1", 2000)
    assert second is not None
    assert (second.sequence, len(second.uses), second.failures[0].count) == (2, 0, 1)


def test_a_report_has_a_bound_and_the_rest_follows() -> None:
    journal = AccessJournal()
    for number in range(MAX_USES + 5):
        journal.use(f"k{number}", "", 1000)
    sizes = []
    while (report := journal.take("g-1", 1000)) is not None:
        sizes.append(len(report.uses))
    assert sizes == [MAX_USES, 5]
