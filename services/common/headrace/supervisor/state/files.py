"""Small files that other processes read: written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that no reader ever sees half of it.

    Envoy watches for the rename, and would read a file that is being written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill in `$name`s as JSON, which YAML and nats.conf read as the same values.

    Raises:
        KeyError: the template has a name that `values` lacks.
    """
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return Template(template).substitute(quoted)


def read_json_object(path: Path) -> dict[str, object] | None:
    """None while the file is not there or not yet whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log; reads no more than its last 64 KiB."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 65536))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]
