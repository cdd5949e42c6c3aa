"""Small files that other processes read, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

SECRET_MODE = 0o600
"""Of files that hold a secret: only their owner may read them."""


def write_atomically(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Replace a file so that a reader sees the old or the new text, never a part.

    Envoy watches for the rename.

    Args:
        mode: of the new file, less what the umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Why removed first: a draft that a crash has left would keep its mode.
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def render(template: str, values: Mapping[str, Any]) -> str:
    """Replace each `$name` with its value as JSON, which YAML and nats.conf read alike.

    Raises:
        KeyError: the template has a name that `values` lacks.
    """
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return Template(template).substitute(quoted)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a file; None if it is missing, incomplete or not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log, from its last 64 KiB; none if it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 65536))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]
