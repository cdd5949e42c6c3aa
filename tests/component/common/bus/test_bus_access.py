"""A process proves itself to the broker, and the broker to it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import connect
from headrace.credentials.tls_files import TlsFiles, TlsPaths
from headrace.testing.nats_server import NatsServer, nats_server
from helpers.eventually import eventually
from helpers.mesh_certificates import MeshAuthority


@pytest.fixture
def authority(tmp_path: Path) -> MeshAuthority:
    return MeshAuthority(tmp_path / "tls")


def _tls(paths: TlsPaths) -> str:
    return (
        f'tls {{ cert_file: "{paths.cert}", key_file: "{paths.key}", ca_file: "{paths.ca}", '
        "verify: true }"
    )


def _users(password: str) -> str:
    return f"authorization {{ users: [{{ user: worker, password: {password} }}] }}"


def _broker(
    folder: Path, authority: MeshAuthority, *, more: str = ""
) -> AbstractAsyncContextManager[NatsServer]:
    return nats_server(folder, more=f"{_tls(authority.issue('nats'))}\n{more}")


def _credentials(folder: Path, text: str) -> Path:
    file = folder / "credentials"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


async def test_a_process_with_certificate_and_password_uses_an_inbox_of_its_own(
    tmp_path: Path, authority: MeshAuthority
) -> None:
    may = '{ publish: ">", subscribe: ["_INBOX_worker.>", "t.>"] }'
    users = f"authorization {{ users: [{{ user: worker, password: p, permissions: {may} }}] }}"
    async with _broker(tmp_path, authority, more=users) as server:
        bus = await connect(
            server.url,
            name="test",
            wait_s=5.0,
            replicas=None,
            tls=TlsFiles(authority.issue("worker")),
            credentials_file=_credentials(tmp_path, "worker:p\n"),
        )

        async def answer(payload: bytes) -> bytes:
            return payload

        await bus.serve("t.echo", answer)
        assert await bus.request("t.echo", b"x", timeout_s=5.0) == b"x"
        await bus.close()


async def _refusal(server: NatsServer, paths: TlsPaths | None, credentials: Path | None) -> str:
    tls = None if paths is None else TlsFiles(paths)
    with pytest.raises(BusUnavailable) as failed:
        await connect(server.url, name="test", wait_s=1.0, tls=tls, credentials_file=credentials)
    return str(failed.value)


async def test_what_a_broker_refuses_is_named(tmp_path: Path, authority: MeshAuthority) -> None:
    stranger = MeshAuthority(tmp_path / "stranger")
    signed_by_stranger = stranger.issue("worker", trusted=authority.pair.certificate)
    right, wrong = _credentials(tmp_path, "worker:p"), tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("worker:q")
    worker = authority.issue("worker")
    expired = authority.issue("worker", "old", age=timedelta(days=91))
    async with _broker(tmp_path, authority, more=_users("p")) as server:
        why = await _refusal(server, worker, wrong)
        assert "it refuses this user, password or token" in why
        why = await _refusal(server, stranger.issue("worker", "two"), right)
        assert "its certificate is not trusted" in why
        assert "tls_ca_file" in why
        why = await _refusal(server, expired, right)
        assert "tls_cert_file" in why
        assert "expired" in why
        why = await _refusal(server, signed_by_stranger, right)
        assert "tls_cert_file" in why
        assert "authority" in why


async def test_an_expired_certificate_of_the_broker_is_named(
    tmp_path: Path, authority: MeshAuthority
) -> None:
    expired = _tls(authority.issue("nats", age=timedelta(days=91)))
    async with nats_server(tmp_path, more=expired) as server:
        why = await _refusal(server, authority.issue("worker"), None)
    assert "its certificate is not trusted: certificate has expired" in why


async def test_no_password_is_sent_to_a_broker_without_tls(
    tmp_path: Path, authority: MeshAuthority
) -> None:
    async with nats_server(tmp_path, more=_users("p")) as server:
        credentials = _credentials(tmp_path, "worker:p")
        why = await _refusal(server, authority.issue("worker"), credentials)
        assert "it does not offer TLS, which tls_ca_file requires" in why


@pytest.mark.parametrize("text", ["worker", ":p", "worker:", "worker:p\nworker:q"])
async def test_credentials_are_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(BusUnavailable, match="is not one line user:password"):
        await connect("nats://[::1]:9", name="t", credentials_file=_credentials(tmp_path, text))


async def test_credentials_that_others_can_read_are_not_used(tmp_path: Path) -> None:
    credentials = _credentials(tmp_path, "worker:p")
    credentials.chmod(0o640)
    async with nats_server(tmp_path, more=_users("p")) as server:
        why = await _refusal(server, None, credentials)
    assert f"run chmod 600 {credentials}" in why


async def test_a_reconnect_uses_the_certificate_and_the_password_of_today(
    tmp_path: Path, authority: MeshAuthority
) -> None:
    """After it, the broker trusts another authority and knows another password."""
    stranger = MeshAuthority(tmp_path / "new")
    credentials = _credentials(tmp_path, "worker:p")
    paths = authority.issue("worker")
    async with _broker(tmp_path, authority, more=_users("p")) as server:
        tls = TlsFiles(paths)
        bus = await connect(
            server.url, name="test", wait_s=5.0, tls=tls, credentials_file=credentials
        )
        await server.stop()
        await eventually(lambda: not bus.connected)
        stranger.issue("worker", at=paths.cert.parent)
        credentials.write_text("worker:q")
        renewed = NatsServer(tmp_path, more=f"{_tls(stranger.issue('nats'))}\n{_users('q')}")
        renewed.port = server.port
        await renewed.start()
        try:
            async with asyncio.timeout(20):
                await eventually(lambda: bus.connected)
            await bus.put_result("a", b"stored")
        finally:
            await bus.close()
            await renewed.stop()
