"""The first keys: made once, never over a file that is there, and not when they were ended."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from headrace.auth.keys import key_id_of, new_key
from headrace.credentials.secret_files import InsecureSecretFile
from headrace_control.base.records import Digest
from headrace_control.publishing.first_keys import make_first_keys
from headrace_control.store import Store
from helpers.control_store import ROOT


def digest(secret: str) -> Digest:
    return Digest(sha256(secret.encode()).digest(), "p1")


async def make(store: Store, folder: Path) -> None:
    await make_first_keys(store.keys, folder, digest)


async def test_files_and_keys_are_made_together(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    await make(store, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["admin.key", "cli.key"]
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        secret = file.read_text().strip()
        key = await store.keys.find(key_id_of(secret) or "")
        assert key.digests == (digest(secret),)
    before = (folder / "admin.key").read_text()
    await make(store, folder)
    assert (folder / "admin.key").read_text() == before
    assert await store.keys.count() == 2


async def test_a_key_that_is_in_a_file_already_becomes_the_first_one(
    store: Store, tmp_path: Path
) -> None:
    chosen = new_key()
    file = tmp_path / "admin.key"
    file.touch(mode=0o600)
    file.write_text(f"{chosen}\n")
    await make(store, tmp_path)
    assert file.read_text() == f"{chosen}\n"
    assert (await store.keys.find(key_id_of(chosen) or "")).tenant == "headrace"


async def test_keys_that_were_ended_do_not_come_back(store: Store, tmp_path: Path) -> None:
    await make(store, tmp_path / "first")
    for key in (await store.keys.list()).items:
        await store.keys.revoke(key.tenant, key.key_id, by=ROOT)
    await make(store, tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("content", "mode"),
    [("no key", 0o600), (new_key(), 0o644), ("", 0o600)],
    ids=["no key", "readable by others", "empty"],
)
async def test_a_file_that_cannot_hold_the_first_key_is_named_and_kept(
    store: Store, tmp_path: Path, content: str, mode: int
) -> None:
    file = tmp_path / "admin.key"
    file.write_text(content)
    os.chmod(file, mode)
    with pytest.raises((InsecureSecretFile, ValueError), match=r"admin\.key"):
        await make(store, tmp_path)
    assert file.read_text() == content
    assert await store.keys.count() == 0
