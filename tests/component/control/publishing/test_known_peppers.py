"""A mesh that lacks the peppers of its keys says so, and does not lock everybody out in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.auth.keys import new_key, redacted
from headrace.auth.peppers import PEPPER_BYTES, Peppers
from headrace_control.base.published_rows import EPOCH, time_of
from headrace_control.base.records import Digest
from headrace_control.publishing.first_keys import make_first_keys
from headrace_control.publishing.known_peppers import UnknownPeppers, require_known_peppers
from headrace_control.store import Store
from helpers.control_store import ROOT

OLD, NEW = os.urandom(PEPPER_BYTES), os.urandom(PEPPER_BYTES)


def digest(secret: str) -> Digest:
    made = Peppers({"old": OLD}).digest(secret)
    return Digest(made.digest, made.pepper_id, time_of(made.expire_ms))


async def test_a_new_database_needs_no_pepper(store: Store) -> None:
    await require_known_peppers(store.keys, Peppers({"new": NEW}))


async def test_keys_of_other_peppers_stop_the_start(store: Store, tmp_path: Path) -> None:
    await make_first_keys(store.keys, tmp_path / "state", digest)
    await require_known_peppers(store.keys, Peppers({"new": NEW, "old": OLD}))
    with pytest.raises(UnknownPeppers, match=r"peppers are old, .* has new alone"):
        await require_known_peppers(store.keys, Peppers({"new": NEW}))


async def test_some_keys_of_lost_peppers_are_warned_about(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await make_first_keys(store.keys, tmp_path / "state", digest)
    key = await store.keys.find(_id_in(tmp_path / "state" / "cli.key"))
    secret = new_key(key.key_id)
    renewed = Peppers({"new": NEW}).digest(secret)
    fresh = Digest(renewed.digest, renewed.pepper_id, time_of(renewed.expire_ms))
    await store.keys.rotate(
        key.tenant, key.key_id, fresh, redacted=redacted(secret), old_ends=EPOCH, by=ROOT
    )
    await require_known_peppers(store.keys, Peppers({"new": NEW}))
    assert [record.__dict__["peppers"] for record in caplog.records] == [["old"]]


def _id_in(file: Path) -> str:
    return file.read_text()[3:14]
