"""What is believed of a table when the broker has lost something."""

from __future__ import annotations

from headrace.auth.known_rows import KnownRows
from headrace.bus.subjects import TABLE_STAMP
from headrace.internal.v1.access_pb2 import TableStamp


def stamp(time_ms: int) -> dict[str, bytes]:
    return {TABLE_STAMP: TableStamp(time_ms=time_ms).SerializeToString()}


def number(data: bytes) -> int:
    return int(data)


class Known(KnownRows[int]):
    def __init__(self) -> None:
        self.unreadable: list[str] = []
        super().__init__(number, lambda key, _: self.unreadable.append(key))


def known(*, stamp_ms: int = 100, **rows: bytes) -> Known:
    table = Known()
    table.on_table(rows | stamp(stamp_ms))
    return table


def test_a_first_table_without_a_stamp_is_not_whole_and_gives_no_rows() -> None:
    table = Known()
    assert not table.is_whole
    table.on_table({"a": b"1"})
    assert (table.is_whole, dict(table.rows)) == (False, {})
    table.on_row("b", b"2")
    assert dict(table.rows) == {}
    table.on_row(TABLE_STAMP, stamp(5)[TABLE_STAMP])
    assert (table.is_whole, dict(table.rows)) == (True, {"a": 1, "b": 2})


def test_changes_are_in_force_at_once() -> None:
    table = known(a=b"1")
    table.on_row("b", b"2")
    table.on_row("a", b"3")
    assert dict(table.rows) == {"a": 3, "b": 2}
    table.on_row("a", None)
    assert dict(table.rows) == {"b": 2}
    assert table.was_deleted("a")


def test_a_lost_store_revokes_nothing_and_brings_nothing_back() -> None:
    table = known(a=b"1", b=b"2")
    table.on_row("a", None)
    table.on_table({})
    assert dict(table.rows) == {"b": 2}
    table.on_row("c", b"3")
    assert dict(table.rows) == {"b": 2, "c": 3}
    # Control has written all that there is: b was deleted while nobody could hear it.
    table.on_row(TABLE_STAMP, stamp(130)[TABLE_STAMP])
    assert dict(table.rows) == {"c": 3}


def test_a_deletion_holds_while_the_table_is_written_anew() -> None:
    table = known(a=b"1")
    table.on_table({})
    table.on_row("a", None)
    assert dict(table.rows) == {}


def test_an_old_copy_of_the_store_changes_nothing_until_control_has_seen_to_it() -> None:
    table = known(stamp_ms=100, b=b"2")
    table.on_row("a", None)
    table.on_table({"a": b"1"} | stamp(90))
    assert dict(table.rows) == {"b": 2}
    table.on_row("a", None)
    table.on_row("b", b"2")
    table.on_row(TABLE_STAMP, stamp(140)[TABLE_STAMP])
    assert dict(table.rows) == {"b": 2}


def test_a_store_that_forgot_the_last_deletion_does_not_bring_it_back() -> None:
    table = known(stamp_ms=100, a=b"1", b=b"2")
    table.on_row("a", None)
    table.on_table({"a": b"1", "b": b"2"} | stamp(100))
    assert dict(table.rows) == {"b": 2}
    table.on_table({"a": b"1", "b": b"2"} | stamp(101))
    assert dict(table.rows) == {"a": 1, "b": 2}, "control says that it is there"


def test_a_row_that_was_deleted_may_be_written_again() -> None:
    table = known(a=b"1")
    table.on_row("a", None)
    table.on_row("a", b"2")
    table.on_table({"a": b"2"} | stamp(100))
    assert dict(table.rows) == {"a": 2}


def test_a_row_that_cannot_be_read_is_none() -> None:
    table = known(a=b"1", b=b"x")
    assert dict(table.rows) == {"a": 1}
    table.on_row("a", b"x")
    assert dict(table.rows) == {}
    assert table.unreadable == ["b", "a"]


def test_a_stamp_that_cannot_be_read_is_none() -> None:
    table = Known()
    table.on_table({"a": b"1", TABLE_STAMP: b"\xff"})
    assert not table.is_whole
    assert table.unreadable == [TABLE_STAMP]


def test_later_stamps_follow_the_table() -> None:
    table = known(stamp_ms=100)
    for time_ms, expected in ((110, 110), (105, 110), (120, 120)):
        table.on_row(TABLE_STAMP, stamp(time_ms)[TABLE_STAMP])
        assert table.stamp_ms == expected
