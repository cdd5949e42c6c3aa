"""What differs between a table and the database, and what may be published at the same time."""

from __future__ import annotations

from headrace.bus.subjects import TABLE_STAMP
from headrace_control.base.records import OutboxRow
from headrace_control.publishing.comparison import difference, runs


def test_what_is_right_is_left_alone() -> None:
    rows = {"a": b"1"}
    assert difference(rows, rows | {TABLE_STAMP: b"stamp"}) == {}


def test_rows_that_differ_or_are_missing_are_put_and_unknown_ones_deleted_first() -> None:
    changes = difference({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"old", "z": b"9"})
    assert list(changes.items()) == [("z", None), ("b", b"2"), ("c", b"3")]


def row(table: str, key: str) -> OutboxRow:
    return OutboxRow(1, table, key, b"")


def test_rows_of_different_keys_of_one_table_are_published_together() -> None:
    rows = [row("keys", "a"), row("keys", "b"), row("keys", "c")]
    assert list(runs(rows, longest=2)) == [tuple(rows[:2]), tuple(rows[2:])]


def test_a_key_is_published_after_its_tenant_and_after_what_it_was_before() -> None:
    rows = [row("tenants", "t"), row("keys", "a"), row("keys", "b"), row("keys", "a")]
    assert list(runs(rows, longest=9)) == [(rows[0],), (rows[1], rows[2]), (rows[3],)]
    assert list(runs([], longest=9)) == []
