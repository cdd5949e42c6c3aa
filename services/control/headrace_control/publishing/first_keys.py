"""The first keys of a mesh, without which none could be made: written to files at first start."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.auth.keys import key_id_of, new_key, redacted
from headrace.auth.scopes import (
    ADMIN,
    ANY_MODEL,
    CLI_SCOPES,
    DEFAULT_TENANT,
    MESH_TENANT,
)
from headrace_control.base.records import SYSTEM, Actor, Digest, Key

log = logging.getLogger(__name__)

FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin.key": (MESH_TENANT, (ADMIN,)),
    "cli.key": (DEFAULT_TENANT, CLI_SCOPES),
}
"""Tenant and scopes of the key in each file."""


class Keys(Protocol):
    """Of the store."""

    async def count(self) -> int: ...

    async def create(
        self, key: Key, digest: Digest, *, make_tenant: bool = False, by: Actor
    ) -> Key: ...


async def make_first_keys(keys: Keys, folder: Path, digest: Callable[[str], Digest]) -> None:
    """Make the key of each file, unless the database has keys. No file is overwritten.

    A process that dies in between leaves a file whose key is not valid, or a key without a file;
    so the file comes first, and a file that is there is taken at its word: its key is stored.

    Raises:
        OSError: a file cannot be written or read.
        ValueError: a file that is there holds no key.
    """
    missing = set(FILES)
    if await keys.count() >= len(FILES):
        return
