"""The form of an upload, read piece by piece: the file's bytes are passed on as they come. Pure.

form = UploadForm('multipart/form-data; boundary=x')
for data in body:
    for piece in form.feed(data):
        ...  # of the file
form.finish()
form.described("acme") == NewFile("acme", "batch", "rows.jsonl", 2592000)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headrace.errors import BodyTooLarge, InvalidRequest
from headrace_control.base.files import (
    BATCH,
    BATCH_KEPT_S,
    EXPIRES_AFTER_S,
    MAX_FILE_BYTES,
    NewFile,
    check_purpose,
    safe_filename,
)

FORM_BYTES = 64 * 1024
"""Most that a body may have besides its file: fields, headers and boundaries."""
_FIELD_BYTES = 1024
_FILE, _PURPOSE = "file", "purpose"
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = (_PURPOSE, _ANCHOR, _SECONDS)

# It would log what is wrong with a body, which the client is answered.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def check_declared(size: int) -> None:
    """Check the length of a body before it is read.

    Raises:
        BodyTooLarge: it cannot be that of a file that may be uploaded.
    """
    if size > MAX_FILE_BYTES + FORM_BYTES:
        raise _too_large()


class UploadForm:
    """Takes a body of multipart/form-data in pieces of any sizes.

    Raises:
        InvalidRequest: it is no such body, or has fields that no upload has.
        BodyTooLarge: the file, or the rest of the body, is larger than it may be.
    """

    def __init__(self, content_type: str, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes = max_bytes
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(
                f"Content-Type is {content_type[:80]!r}; a file is uploaded as multipart/form-data"
                " with a boundary"
            )
        self._pieces: list[bytes] = []
        self._fields: dict[str, str] = {}
        self._filename: str | None = None
        self._ended = False
        self._bytes = self._file_bytes = 0
        self._part = _Part()
        self._parser = _parser(boundary, self._callbacks())

    def feed(self, data: bytes) -> list[bytes]:
        """Take a piece of the body; return what there is of the file in it."""
        self._bytes += len(data)
        try:
            self._parser.write(data)
        except FormParserError:
            raise InvalidRequest("the body is not multipart/form-data of its boundary") from None
        pieces, self._pieces = self._pieces, []
        if self._file_bytes > self._max_bytes or self._bytes - self._file_bytes > FORM_BYTES:
            raise _too_large()
        return pieces

    def finish(self) -> None:
        """Check that the body is complete."""
        if not self._ended:
            raise InvalidRequest("the body ends before its last boundary")
        if self._filename is None:
            raise InvalidRequest("file is missing", field=_FILE)
        check_purpose(self._fields.get(_PURPOSE, ""))

    def described(self, tenant: str) -> NewFile:
        """Return what the form says of the file, once it is complete."""
        purpose = self._fields[_PURPOSE]
        expires = _expires_after_s(self._fields)
        if expires is None and purpose == BATCH:
            expires = BATCH_KEPT_S
        return NewFile(tenant, purpose, self._filename or "file", expires)

    def _callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _end_header(self) -> None:
        part = self._part
        if part.header_name.lower() == b"content-disposition":
            part.disposition = part.header_value.decode("latin-1")
        part.header_name, part.header_value = b"", b""

    def _end_headers(self) -> None:
        part = self._part
        kind, options = parse_options_header(part.disposition)
        part.name = _text(options.get(b"name", b""))
        if kind != b"form-data" or part.name not in (_FILE, *_FIELDS):
            shown = f"unknown field {part.name[:80]!r}" if part.name else "a part without a name"
            raise InvalidRequest(f"{shown}; an upload has {', '.join((_FILE, *_FIELDS))}")
        if part.name in self._fields or (part.name == _FILE and self._filename is not None):
            raise InvalidRequest(f"{part.name} is there twice", field=part.name)
        if part.name == _FILE:
            # Browsers and httpx escape quotes so, and nothing else.
            given = _text(options.get(b"filename", b"")).replace("%22", '"')
            self._filename = safe_filename(given)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.name == _FILE:
            self._file_bytes += end - start
            self._pieces.append(data[start:end])
            return
        part.value += data[start:end]
        if len(part.value) > _FIELD_BYTES:
            fact = f"{part.name} has more than {_FIELD_BYTES} bytes"
            raise InvalidRequest(fact, field=part.name)

    def _end_part(self) -> None:
        part = self._part
        if part.name == _FILE:
            return
        self._fields[part.name] = value = _text(part.value)
        # At once, so that a wrong one is refused before the file behind it has come.
        if part.name == _PURPOSE:
            check_purpose(value)

    def _end(self) -> None:
        self._ended = True


class _Part:
    def __init__(self) -> None:
        self.header_name = self.header_value = b""
        self.disposition = self.name = ""
        self.value = b""


def _parser(boundary: bytes, callbacks: dict[str, Callable[..., None]]) -> MultipartParser:
    try:
        return MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # its TypedDict
    except FormParserError as error:
        raise InvalidRequest(f"Content-Type: {error}") from None


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(
        f"the file is larger than {MAX_FILE_BYTES >> 20} MiB ({MAX_FILE_BYTES} bytes), or the form"
        f" has more than {FORM_BYTES} bytes besides it"
    )


def _expires_after_s(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get(_ANCHOR), fields.get(_SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        shown = "is missing" if anchor is None else f"is {anchor[:80]!r}"
        raise InvalidRequest(f"{_ANCHOR} {shown}; it must be created_at", field=_ANCHOR)
    least, most = EXPIRES_AFTER_S
    is_number = seconds is not None and seconds.isascii() and seconds.isdigit()
    if not is_number or len(seconds or "") > 9 or not least <= int(seconds or 0) <= most:
        shown = "is missing" if seconds is None else f"is {seconds[:80]!r}"
        fact = f"{_SECONDS} {shown}; it must be {least} to {most}"
        raise InvalidRequest(fact, field=_SECONDS)
    return int(seconds or 0)
