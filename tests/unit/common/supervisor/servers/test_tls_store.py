"""The certificates of a mesh's state directory, and how they change under way."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.credentials.tls_files import TlsFiles
from headrace.rpc.identity import PUBLIC
from headrace.supervisor.servers.certificates import Pair, issue, make_authority
from headrace.supervisor.servers.tls_store import GIVEN, ROLES, TlsStore
from headrace.supervisor.state.failures import InvalidOption

NOW = datetime.now(UTC)


@pytest.fixture
def store(tmp_path: Path) -> TlsStore:
    store = TlsStore(tmp_path / "tls")
    store.prepare(NOW, ["mesh.example.com", "192.0.2.7"])
    return store


def authority(store: TlsStore) -> Pair:
    key, begin, rest = (store.folder / "ca.key").read_bytes().partition(b"-----BEGIN CERT")
    return Pair(begin + rest, key)


def test_keys_are_for_their_owner_alone(store: TlsStore) -> None:
    keys = [path for path in store.folder.rglob("*.key") if not path.is_symlink()]
    assert len(keys) == len(ROLES) + 1
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_the_public_certificate_has_the_names_that_clients_use(store: TlsStore) -> None:
    names = {"public.headrace.internal", "localhost", "127.0.0.1", "::1"}
    assert set(store.read(PUBLIC).hosts) == names | {"mesh.example.com", "192.0.2.7"}
    assert "mesh.example.com" not in store.read("gateway").hosts


def test_a_second_start_keeps_what_is_good(store: TlsStore) -> None:
    before = {role: store.read(role) for role in ROLES}
    store.prepare(NOW + timedelta(days=1), ["192.0.2.7"])
    assert {role: store.read(role) for role in ROLES} == before
    store.prepare(NOW + timedelta(days=1), ["192.0.2.8"])
    assert [role for role in ROLES if store.read(role) != before[role]] == [PUBLIC]
    assert "192.0.2.8" in store.read(PUBLIC).hosts


def test_certificates_are_renewed_after_two_thirds_of_their_life(store: TlsStore) -> None:
    assert store.renew(NOW + timedelta(days=59)) == []
    assert store.renew(NOW + timedelta(days=61)) == list(ROLES)
    assert store.renew(NOW + timedelta(days=61)) == []
    assert store.read("gateway").valid[1] > NOW + timedelta(days=150)


def test_a_renewed_certificate_has_the_names_of_the_old_one(store: TlsStore) -> None:
    before = store.read(PUBLIC).hosts
    store.renew(NOW, all_roles=True)
    assert sorted(store.read(PUBLIC).hosts) == sorted(before)


def test_another_authority_signs_after_everything_has_trusted_it(store: TlsStore) -> None:
    old, before = authority(store), store.read("worker")
    store.add_authority(NOW)
    assert store.read("worker") == before
    assert store.paths("worker").ca.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    store.begin_authority(NOW)
    new = authority(store)
    assert store.read("worker").is_signed_by(new)
    assert not store.read("worker").is_signed_by(old)
    assert old.certificate in store.paths("worker").ca.read_bytes()
    assert store.forget_authorities() == 1
    assert store.ca.read_bytes() == store.paths("worker").ca.read_bytes() == new.certificate


def test_every_role_has_files_that_belong_together(store: TlsStore) -> None:
    for role in ROLES:
        assert TlsFiles(store.paths(role)).current.cert == store.read(role).certificate


def test_no_directory_is_left_behind(store: TlsStore) -> None:
    store.renew(NOW, all_roles=True)
    assert len([p for p in store.folder.iterdir() if p.is_symlink()]) == len(ROLES)
    assert len([p for p in store.folder.iterdir() if p.is_dir() and not p.is_symlink()]) == len(
        ROLES
    )


def test_what_a_crash_has_left_is_removed_at_the_next_start(store: TlsStore) -> None:
    left = store.folder / ".gateway.5e1f"
    left.mkdir()
    (left / "tls.key").write_bytes(b"half written")
    before = {role: store.read(role) for role in ROLES}
    store.prepare(NOW, [])
    assert not left.exists()
    assert {role: store.read(role) for role in ROLES} == before


def _given(folder: Path) -> tuple[Path, Path]:
    pair = issue(make_authority(NOW), PUBLIC, "given", now=NOW, hosts=["llm.example.com"])
    cert, key = folder / "given.crt", folder / "given.key"
    cert.write_bytes(pair.certificate)
    key.touch(mode=0o600)
    key.write_bytes(pair.key)
    return cert, key


def test_a_given_certificate_is_taken_when_it_has_changed(store: TlsStore, tmp_path: Path) -> None:
    cert, key = _given(tmp_path)
    assert store.take(cert, key)
    assert not store.take(cert, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(store.paths(GIVEN).cert, store.paths(GIVEN).key)
    _given(tmp_path)
    assert store.take(cert, key)


def test_a_given_certificate_that_cannot_be_used_is_refused_with_the_reason(
    store: TlsStore, tmp_path: Path
) -> None:
    cert, key = _given(tmp_path)
    key.chmod(0o644)
    with pytest.raises(InvalidOption, match=f"run chmod 600 {key}"):
        store.take(cert, key)
    key.chmod(0o600)
    key.write_bytes(store.read("worker").key)
    with pytest.raises(InvalidOption, match="KEY_VALUES_MISMATCH"):
        store.take(cert, key)
    with pytest.raises(InvalidOption, match="No such file"):
        store.take(tmp_path / "none", key)
