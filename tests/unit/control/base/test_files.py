"""Names and purposes of files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace_control.base.files import MAX_NAME_BYTES, check_purpose, safe_filename


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\data\\rows.jsonl", "rows.jsonl"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("Zähler.jsonl", "Zähler.jsonl"),
        ("行.jsonl", "行.jsonl"),
        ("a\udcff", "a"),
        *((nothing, "file") for nothing in ("", ".", "..", "/", "a/", "\0", "  ", "..\\")),
    ],
)
def test_of_a_name_is_kept_what_is_no_path_and_no_control(given_name: str, kept: str) -> None:
    assert safe_filename(given_name) == kept


@given(st.text())
def test_every_name_becomes_one_that_can_be_stored_and_sent(name: str) -> None:
    kept = safe_filename(name)
    assert 1 <= len(kept.encode()) <= MAX_NAME_BYTES
    assert not set(kept) & set("/\\\r\n\0")
    assert kept.strip(".")
    assert safe_filename(kept) == kept


@pytest.mark.parametrize("purpose", ["", "Batch", "batch_output", "x" * 1000])
def test_an_unknown_purpose_is_refused_with_those_there_are(purpose: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one of assistants, batch") as refused:
        check_purpose(purpose)
    assert refused.value.field == "purpose"
    assert len(str(refused.value)) < 300
