"""Files as OpenAI's API shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from headrace.errors import InvalidRequest
from headrace.v1.files_pb2 import ListFilesRequest
from headrace_control.base.files import PURPOSES, File, FileQuery

MAX_LISTED = 10_000
_ORDERS = ("asc", "desc")


def file_object(file: File) -> dict[str, Any]:
    return {
        "id": file.file_id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": _seconds(file.create_time),
        "expires_at": None if file.expire_time is None else _seconds(file.expire_time),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": None,
    }


def file_list(files: Sequence[File], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [file_object(file) for file in files],
        "first_id": files[0].file_id if files else None,
        "last_id": files[-1].file_id if files else None,
        "has_more": has_more,
    }


def deleted_object(file_id: str) -> dict[str, Any]:
    return {"id": file_id, "object": "file", "deleted": True}


def file_query(request: ListFilesRequest) -> FileQuery:
    """Return which files are listed.

    Raises:
        InvalidRequest: the request is out of range.
    """
    limit = request.limit if request.HasField("limit") else MAX_LISTED
    if not 1 <= limit <= MAX_LISTED:
        fact = f"limit is {limit}; it must be 1 to {MAX_LISTED}"
        raise InvalidRequest(fact, field="limit")
    order = request.order or "desc"
    for name, value, known in (("order", order, _ORDERS), ("purpose", request.purpose, PURPOSES)):
        if value and value not in known:
            fact = f"{name} is {value[:80]!r}; it must be one of {', '.join(known)}"
            raise InvalidRequest(fact, field=name)
    return FileQuery(request.purpose, request.after, limit, oldest_first=order == "asc")


def content_disposition(filename: str) -> str:
    """Return the header by which browsers save a file under its name.

    Both forms of RFC 6266: old clients read the first, in ASCII without quotes and escapes.
    """
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
