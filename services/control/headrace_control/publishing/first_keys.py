"""The first keys of a mesh, without which none could be made: written to files at its first start.

admin.key    tenant headrace, admin:*: makes all other keys
cli.key      tenant default: what the commands of this machine use
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from headrace.auth.keys import key_id_of, new_key, redacted
from headrace.auth.scopes import ADMIN, ANY_MODEL, DEFAULT_TENANT, MESH_TENANT, USER_SCOPES
from headrace.credentials.secret_files import read_secret
from headrace_control.base.records import SYSTEM, Actor, Digest, Key

log = logging.getLogger(__name__)

_FIRST: dict[str, Key] = {
    "admin.key": Key("", MESH_TENANT, display_name="First administrator", scopes=(ADMIN,)),
    "cli.key": Key(
        "", DEFAULT_TENANT, display_name="Commands", scopes=USER_SCOPES, models=(ANY_MODEL,)
    ),
}


class Keys(Protocol):
    """Of the store."""

    async def count(self) -> int: ...

    async def create_first(self, first: Sequence[tuple[Key, Digest]], *, by: Actor) -> bool: ...


async def make_first_keys(keys: Keys, folder: Path, digest: Callable[[str], Digest]) -> None:
    """Write a file for each first key and store the keys, unless the database has keys.

    The files come first, and a file that is there is never overwritten: its key is the one that is
    stored. So a death in between costs nothing, and a file that an operator has put there holds.

    Raises:
        OSError: a file cannot be written.
        InsecureSecretFile: a file that is there can be read by others, or not by this process.
        ValueError: a file that is there holds no key.
    """
    if await keys.count():
        return
    made = _keys_of(folder)
    first = [(key, digest(secret)) for key, secret in made]
    if await keys.create_first(first, by=SYSTEM):
        files = [str(folder / name) for name in _FIRST]
        log.info("first_keys.written", extra={"files": files})


def _keys_of(folder: Path) -> list[tuple[Key, str]]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = []
    for name, template in _FIRST.items():
        secret = _written(folder / name)
        key_id = key_id_of(secret)
        if key_id is None:
            raise ValueError(f"{folder / name} holds no API key; remove it to get a new one")
        found.append((replace(template, key_id=key_id, redacted=redacted(secret)), secret))
    return found


def _written(file: Path) -> str:
    """Return the key in a file; a new one, in a new file that only its owner may read, if there is
    none."""
    if not file.exists():
        draft = file.with_name(f".{file.name}.{token_hex(8)}")
        try:
            with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as opened:
                opened.write(new_key() + "\n")
                opened.flush()
                os.fsync(opened.fileno())
            # Why no rename: a link overwrites nothing.
            os.link(draft, file)
        except FileExistsError:
            pass  # another process was faster
        finally:
            draft.unlink(missing_ok=True)
    return read_secret(file).decode(errors="replace")
