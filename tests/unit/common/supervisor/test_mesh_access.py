"""What the processes of a mesh get, so that its callers need keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bus import BusUnavailable
from headrace.supervisor.mesh_access import MeshAccess
from headrace.supervisor.plan.mesh_options import DEFAULT_MODEL, Auth, MeshOptions, Role
from headrace.supervisor.servers.nats_permissions import BrokerUser
from headrace.supervisor.state.state_dir import StateDir

FILES = {"ca": "ca.crt", "cert": "tls.crt", "key": "tls.key"}


def options(auth: Auth, *, tls: bool = False) -> MeshOptions:
    return MeshOptions((DEFAULT_MODEL,), auth=auth, tls=tls)


def webhook_flags(folder: Path, role: Role) -> tuple[str, ...]:
    """Control alone encrypts secrets of webhooks, whether callers need keys or not."""
    return (f"--webhook-keys-file={folder}/secrets/webhooks",) if role is Role.CONTROL else ()


def test_without_keys_there_are_no_users_and_only_the_secrets_of_webhooks(tmp_path: Path) -> None:
    access = MeshAccess(options(Auth.NONE), StateDir(tmp_path))
    assert (access.passwords, access.proof, access.credentials_file) == ({}, "", None)
    for role in Role:
        assert access.flags(role) == webhook_flags(tmp_path, role)
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["webhooks"]


def test_with_keys_each_role_gets_its_own_user_and_no_secret_by_value(tmp_path: Path) -> None:
    access = MeshAccess(options(Auth.KEYS), StateDir(tmp_path))
    assert set(access.passwords) == set(BrokerUser)
    delivery = f"--delivery-secret-file={tmp_path}/secrets/delivery"
    assert access.flags(Role.WORKER) == (
        f"--nats-credentials-file={tmp_path}/secrets/nats/worker",
        delivery,
    )
    with_delivery = {role for role in Role if delivery in access.flags(role)}
    assert with_delivery == {Role.GATEWAY, Role.WORKER, Role.CONTROL, Role.WEB}
    for role in (Role.GATEWAY, Role.CONTROL, Role.WEB):
        flags = access.flags(role)
        assert "--auth=keys" in flags
        assert f"--peppers-file={tmp_path}/secrets/peppers" in flags
        shown = " ".join(flags)
        assert access.proof not in shown
        assert not any(password in shown for password in access.passwords.values())


def test_the_first_keys_are_named_once(tmp_path: Path) -> None:
    state_dir = StateDir(tmp_path)
    first = MeshAccess(options(Auth.KEYS), state_dir)
    assert first.new_keys == ""  # control has not made them
    for file in (state_dir.admin_key, state_dir.cli_key):
        file.touch()
    assert str(state_dir.cli_key) in first.new_keys
    assert MeshAccess(options(Auth.KEYS), state_dir).new_keys == ""


def test_with_tls_each_role_gets_its_own_certificate(tmp_path: Path) -> None:
    access = MeshAccess(options(Auth.NONE, tls=True), StateDir(tmp_path))
    for role in (Role.GATEWAY, Role.WORKER, Role.SCHEDULER, Role.CONTROL):
        at = tmp_path / "tls" / role
        files = [f"--tls-{n}-file={at / f}" for n, f in FILES.items()]
        assert access.flags(role) == (*files, *webhook_flags(tmp_path, role))
        assert all((at / name).exists() for name in FILES.values())
    assert access.scheme == "https"


async def test_certificates_that_cannot_be_read_now_are_a_broker_that_cannot_be_reached(
    tmp_path: Path,
) -> None:
    access = MeshAccess(options(Auth.NONE, tls=True), StateDir(tmp_path))
    (tmp_path / "tls" / "operator" / "tls.key").unlink()
    with pytest.raises(BusUnavailable, match=r"tls\.key"):
        await access.open_bus("nats://127.0.0.1:1", name="test", wait_s=0.1)
