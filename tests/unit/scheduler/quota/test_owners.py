"""Whose accounts are charged: a name may have been another tenant's."""

from __future__ import annotations

from dataclasses import replace

from headrace.internal.v1.access_pb2 import Limits
from helpers.quota_journal import START_MS, Journal, replay, terms

LIMITS = Limits(requests_per_day=9, tokens_per_day=1000, concurrent_requests=9)
OF_MODEL = {"m": Limits(tokens_per_day=1000)}
FIRST = replace(terms(LIMITS, models=OF_MODEL), create_ms=START_MS - 5000)
NONE = replace(terms(), create_ms=None)
SECOND = replace(FIRST, create_ms=START_MS + 1)


def begun(name: str) -> Journal:
    """The first tenant has used 100 tokens, and a request of it is under way."""
    journal = Journal(FIRST)
    journal.settle("", 100)
    journal.reserve(name, 50)
    journal.confirm(name)
    assert journal.used() == [2, 150, 1, 150]
    return journal


def test_a_tenant_that_takes_a_deleted_ones_name_has_used_nothing() -> None:
    journal = begun("r")
    journal.terms = NONE
    journal.wait(0.001)
    journal.terms = SECOND
    assert journal.used() == [0, 0, 0, 0]
    journal.settle("r", 70)
    journal.settle("late", 10, arrival_ms=START_MS)
    assert journal.used() == [0, 0, 0, 0]
    journal.reserve("r2", 5)
    journal.settle("", 6, request_id="own")
    assert journal.used() == [2, 11, 1, 11]
    assert journal.states(journal.replayed()) == journal.states()
    assert journal.states(replay(journal.snapshot())) == journal.states()
    journal.record.check_integrity()


def test_accounts_of_an_earlier_version_are_the_next_tenants_of_their_name() -> None:
    journal = begun("r")
    for entry in journal.entries:
        for change in entry.changes:
            if change.HasField("charge"):
                change.charge.owner = ""
            elif change.HasField("settle"):
                change.settle.owner = ""
    journal.record = journal.replayed()
    assert journal.used() == [2, 150, 1, 150]
    journal.settle("r", 70)
    assert journal.used() == [2, 170, 0, 170]
    journal.record.check_integrity()
    journal.terms = SECOND
    assert journal.used() == [0, 0, 0, 0]


def test_control_of_an_earlier_version_does_not_say_when_a_tenant_was_created() -> None:
    journal = Journal(terms(LIMITS))
    journal.settle("", 100)
    assert journal.used() == [1, 100, 0]
    journal.terms = replace(journal.terms, create_ms=START_MS)
    assert journal.used() == [1, 100, 0]
