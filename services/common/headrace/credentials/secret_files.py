"""Secrets in files: only their owner may read them, and a changed file is read again.

owner        mode    may be used
this user    0600    yes
this user    0640    no: its group can read it
root         0640    yes, by a process of another user: Kubernetes mounts secrets so
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

RECHECK_S = 1.0
_State = tuple[int, int, int, int]


class InsecureSecretFile(ValueError):
    """A secret file cannot be used; the message names the file and what to do."""


def check_secret_file(path: Path) -> None:
    """
    Raises:
        InsecureSecretFile: the file is missing, or others than its owner may read or write it.
    """
    _checked_state(path)


def read_secret(path: Path) -> bytes:
    """Return the content, without white space around it.

    Raises:
        InsecureSecretFile: as `check_secret_file`, or the file cannot be read or is empty.
    """
    _checked_state(path)
    return _content(path)


class SecretFile(Generic[T]):
    """A parsed secret, which is read again when its file has changed.

    A file that has become invalid is logged once, and the secret stays what it was: a rotation
    that went wrong stops no service.

        edge = SecretFile(settings.edge_secret_file, bytes)
        hmac.compare_digest(edge.value(), given)
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], T], *, recheck_s: float = RECHECK_S
    ) -> None:
        """`recheck_s`: the file is looked at no more often than this.

        Raises:
            InsecureSecretFile: as `read_secret`, or `parse` has raised a ValueError.
        """
        self._path, self._parse, self._recheck_s = path, parse, recheck_s
        self._checked_s = time.monotonic()
        self._seen: _State | str = _checked_state(path)
        self._value = self._read()

    def value(self) -> T:
        """Return the secret as the file has it, or had it `recheck_s` ago."""
        now_s = time.monotonic()
        if now_s - self._checked_s < self._recheck_s:
            return self._value
        self._checked_s = now_s
        try:
            state: _State | str = _checked_state(self._path)
        except InsecureSecretFile as error:
            state = str(error)
        if state != self._seen:
            self._seen = state
            self._reload(state)
        return self._value

    def _reload(self, state: _State | str) -> None:
        try:
            if isinstance(state, str):
                raise InsecureSecretFile(state)
            self._value = self._read()
            log.info("secret_file.reloaded", extra={"file": str(self._path)})
        except InsecureSecretFile as error:
            log.error("secret_file.invalid", extra={"file": str(self._path), "error": str(error)})

    def _read(self) -> T:
        try:
            return self._parse(_content(self._path))
        except InsecureSecretFile:
            raise
        except ValueError as error:
            raise InsecureSecretFile(f"{self._path}: {error}") from error


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise InsecureSecretFile(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise InsecureSecretFile(f"{path} is empty")
    return content


def _checked_state(path: Path) -> _State:
    """Return what tells one content of the file from the next."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InsecureSecretFile(f"{path} cannot be read: {error.strerror}") from error
    # Why: what root owns, a process of another user can only read as one of the file's group.
    by_group = found.st_uid == 0 and os.geteuid() != 0
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(stat.S_IRWXU | (stat.S_IRGRP if by_group else 0)):
        raise InsecureSecretFile(
            f"{path} has mode {mode:04o}, so others than its owner may use it; run "
            f"chmod {'640' if by_group else '600'} {path}"
        )
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
