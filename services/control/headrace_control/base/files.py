"""Files as control keeps them: what they are, and which names and purposes they may have. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from headrace.errors import InvalidRequest

MAX_FILE_BYTES = 200 * 1024 * 1024
"""Of one upload."""
MAX_NAME_BYTES = 255
UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""OpenAI's, of what clients upload."""
BATCH, BATCH_OUTPUT = "batch", "batch_output"
PURPOSES = (*UPLOAD_PURPOSES, BATCH_OUTPUT)
UPLOADING, PROCESSED, ERROR = "uploading", "processed", "error"
"""States of a file. Only this process knows one that is uploading; of one with an error the bytes
are lost."""
BATCH_KEPT_S = 30 * 24 * 3600
"""Of an uploaded file of purpose `batch`, unless its upload says otherwise; as OpenAI does."""
EXPIRES_AFTER_S = (3600, 30 * 24 * 3600)
"""Least and most that an upload may say."""
_FORBIDDEN = re.compile(
    r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls, line separators, and what reverses the direction of the text around it."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is known of a file before its bytes are."""

    tenant: str
    purpose: str
    filename: str = "file"
    expires_after_s: int | None = None
    """None: it is kept until it is deleted."""


@dataclass(frozen=True, slots=True)
class File:
    file_id: str
    """file-<16 of 0-9 a-z>; also the name of its bytes in the object store."""
    tenant: str
    purpose: str
    filename: str
    bytes: int
    """Of one that is uploading: reserved for it."""
    sha256: str
    """Hexadecimal; empty while it is uploading."""
    status: str
    create_time: datetime
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What may be stored, in files and in bytes; what is uploading counts."""

    tenant_bytes: int
    tenant_files: int
    mesh_bytes: int
    """Of all tenants together."""


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files are listed."""

    purpose: str = ""
    """Empty: any."""
    after: str = ""
    """Id of the file before the first one listed; empty: none."""
    limit: int = 100
    oldest_first: bool = False


def safe_filename(name: str) -> str:
    """Return a name that is no path and has nothing but text in it; `file` if nothing is left.

    safe_filename("../../etc/passwd\\r\\n") == "passwd"
    safe_filename("C:\\\\data\\\\rows.jsonl") == "rows.jsonl"
    """
    text = _FORBIDDEN.sub("", unicodedata.normalize("NFC", name))
    text = re.split(r"[/\\]", text)[-1].strip()
    text = text.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip()
    return text if text.strip(".") else "file"


def check_purpose(purpose: str) -> None:
    """Check the purpose of an upload.

    Raises:
        InvalidRequest: it is none of UPLOAD_PURPOSES.
    """
    if purpose not in UPLOAD_PURPOSES:
        shown = f"purpose is {purpose[:80]!r}; it" if purpose else "purpose is missing; it"
        fact = f"{shown} must be one of {', '.join(UPLOAD_PURPOSES)}"
        raise InvalidRequest(fact, field="purpose")
