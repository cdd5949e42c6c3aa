"""Forms of uploads: any form of a client is read, however it is cut, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BodyTooLarge, HeadraceError, InvalidRequest
from headrace_control.api.files.upload_form import FORM_BYTES, UploadForm, check_declared
from headrace_control.base.files import BATCH_KEPT_S, MAX_FILE_BYTES, NewFile

TYPE = "multipart/form-data; boundary=b0undary"
Part = tuple[str, bytes]


def body(*parts: Part) -> bytes:
    """Each part is its Content-Disposition and its value."""
    sent = [
        b"--b0undary\r\nContent-Disposition: %s\r\nX-Other: 1\r\n\r\n%s\r\n" % (d.encode(), value)
        for d, value in parts
    ]
    return b"".join(sent) + b"--b0undary--\r\n"


def field(name: str, value: bytes) -> Part:
    return f'form-data; name="{name}"', value


def file(data: bytes, name: str = "rows.jsonl") -> Part:
    return f'form-data; name="file"; filename="{name}"', data


PURPOSE = field("purpose", b"batch")
ANCHOR = field("expires_after[anchor]", b"created_at")


def read(pieces: Iterable[bytes]) -> tuple[bytes, NewFile]:
    form, found = UploadForm(TYPE), bytearray()
    for data in pieces:
        for piece in form.feed(data):
            found += piece
    form.finish()
    return bytes(found), form.described("acme")


def refusal(*parts: Part) -> HeadraceError:
    with pytest.raises(HeadraceError) as refused:
        read([body(*parts)])
    return refused.value


@given(st.binary(max_size=300), st.lists(st.integers(0, 900), max_size=12), st.booleans())
def test_the_file_is_what_was_sent_wherever_the_body_is_cut(
    data: bytes, cuts: list[int], is_first: bool
) -> None:
    parts = [PURPOSE, file(data)]
    whole = body(*(reversed(parts) if is_first else parts))
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(places)]
    assert read(pieces) == (data, NewFile("acme", "batch", "rows.jsonl", BATCH_KEPT_S))


def test_what_looks_like_the_boundary_is_of_the_file_all_the_same() -> None:
    data = b"--b0undary\r\n\r\n--b0undar\r\n--\r\n-b0undary--"
    for step in range(1, 40):
        whole = body(PURPOSE, file(data))
        pieces = (whole[at : at + step] for at in range(0, len(whole), step))
        assert read(pieces)[0] == data


def test_its_expiry_is_what_the_form_says() -> None:
    seconds = field("expires_after[seconds]", b"3600")
    assert read([body(PURPOSE, ANCHOR, seconds, file(b"x"))])[1].expires_after_s == 3600
    other = field("purpose", b"user_data")
    assert read([body(other, file(b"x"))])[1].expires_after_s is None


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("../../x", "x"),
        ("C:\\a\\b.txt", "b.txt"),
        ("a%22b", 'a"b'),
        ("Zähler", "Zähler"),
        ("", "file"),
    ],
)
def test_its_name_is_no_path(given_name: str, kept: str) -> None:
    assert read([body(PURPOSE, file(b"x", given_name))])[1].filename == kept


@pytest.mark.parametrize(
    ("parts", "param", "words"),
    [
        ([file(b"x")], "purpose", "purpose is missing"),
        ([PURPOSE], "file", "file is missing"),
        ([field("purpose", b"cooking"), file(b"x")], "purpose", "purpose is 'cooking'"),
        ([PURPOSE, PURPOSE, file(b"x")], "purpose", "purpose is there twice"),
        ([PURPOSE, file(b"x"), file(b"y")], "file", "file is there twice"),
        ([PURPOSE, field("fiel", b"x")], None, "unknown field 'fiel'; an upload has file, purpose"),
        ([("form-data", b"x")], None, "a part without a name"),
        ([("attachment; name=file", b"x")], None, "unknown field"),
        ([field("purpose", b"x" * 2000)], "purpose", "more than 1024 bytes"),
        (
            [PURPOSE, ANCHOR, file(b"x")],
            "expires_after[seconds]",
            r"seconds\] is missing; it must be 3600 to 2592000",
        ),
        (
            [PURPOSE, field("expires_after[seconds]", b"3600"), file(b"x")],
            "expires_after[anchor]",
            r"anchor\] is missing; it must be created_at",
        ),
    ],
)
def test_a_form_of_something_else_is_refused(
    parts: list[Part], param: str | None, words: str
) -> None:
    error = refusal(*parts)
    assert isinstance(error, InvalidRequest)
    assert error.field == param
    with pytest.raises(InvalidRequest, match=words):
        raise error


@pytest.mark.parametrize("seconds", ["3599", "2592001", "-1", "1e4", "٣٦٠٠", "", "9" * 30])
def test_an_expiry_out_of_range_is_refused(seconds: str) -> None:
    value = field("expires_after[seconds]", seconds.encode())
    error = refusal(PURPOSE, ANCHOR, value, file(b"x"))
    assert "must be 3600 to 2592000" in str(error)


def test_a_wrong_purpose_is_refused_before_the_file_has_come() -> None:
    form = UploadForm(TYPE)
    whole = body(field("purpose", b"cooking"), file(b"x" * 1000))
    with pytest.raises(InvalidRequest, match="cooking"):
        form.feed(whole[:200])


@pytest.mark.parametrize("end", [1, 3, 12, 40])
def test_a_body_that_breaks_off_is_refused(end: int) -> None:
    with pytest.raises(InvalidRequest, match="ends before its last boundary"):
        read([body(PURPOSE, file(b"x"))[: -2 - end]])


@pytest.mark.parametrize(
    "broken", [b"{}", b"--other\r\n\r\n", b"--b0undary\r\n: x\r\n\r\n", b"--b0undary\r\na b: x\r\n"]
)
def test_a_body_that_is_no_form_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not multipart/form-data of its boundary"):
        read([broken])


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 300}",
    ],
)
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="Content-Type"):
        UploadForm(content_type)


def test_headers_without_an_end_are_refused() -> None:
    form = UploadForm(TYPE)
    form.feed(b"--b0undary\r\nContent-Disposition: ")
    with pytest.raises(InvalidRequest):
        form.feed(b"x" * 10_000)


@pytest.mark.parametrize("extra", [b"\r\n" + b"x" * FORM_BYTES, b""])
def test_a_body_has_little_besides_its_file(extra: bytes) -> None:
    whole = body(PURPOSE, file(b"x" * 2 * FORM_BYTES)) + extra
    if not extra:
        read([whole])
        return
    with pytest.raises(BodyTooLarge):
        read([whole])


def test_a_file_is_refused_with_its_first_byte_too_many() -> None:
    UploadForm(TYPE, max_bytes=1000).feed(body(PURPOSE, file(b"x" * 1000)))
    with pytest.raises(BodyTooLarge):
        UploadForm(TYPE, max_bytes=1000).feed(body(PURPOSE, file(b"x" * 1001)))


def test_a_length_that_cannot_be_is_refused_before_the_body() -> None:
    check_declared(MAX_FILE_BYTES + FORM_BYTES)
    with pytest.raises(BodyTooLarge, match=r"larger than 200 MiB \(209715200 bytes\)"):
        check_declared(MAX_FILE_BYTES + FORM_BYTES + 1)
