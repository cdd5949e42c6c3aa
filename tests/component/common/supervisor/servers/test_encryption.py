"""What a supervisor does for the certificates of its mesh while it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace.rpc.identity import PUBLIC
from headrace.supervisor.plan.mesh_options import DEFAULT_MODEL, MeshOptions
from headrace.supervisor.servers.certificates import issue, make_authority
from headrace.supervisor.servers.encryption import Encryption
from headrace.supervisor.servers.tls_store import GIVEN
from helpers.eventually import eventually


def _give(folder: Path) -> MeshOptions:
    """Write a certificate of the user's; return the options that name it."""
    now = datetime.now(UTC)
    pair = issue(make_authority(now), "site", "given", now=now, hosts=["llm.example.com"])
    cert, key = folder / "given.crt", folder / "given.key"
    cert.write_bytes(pair.certificate)
    key.touch(mode=0o600)
    key.write_bytes(pair.key)
    return MeshOptions((DEFAULT_MODEL,), tls_cert=cert, tls_key=key)


@asynccontextmanager
async def _kept(encryption: Encryption) -> AsyncIterator[tuple[list[str], list[int]]]:
    """What is reported, and an entry for each time that the broker is told."""
    reported, told = list[str](), list[int]()
    keeping = asyncio.create_task(
        encryption.keep(lambda _, fact: reported.append(fact), lambda: told.append(1))
    )
    yield reported, told
    keeping.cancel()


async def test_the_broker_is_told_of_another_certificate_of_its_own_or_authority(
    tmp_path: Path,
) -> None:
    encryption = Encryption(tmp_path / "tls", MeshOptions((DEFAULT_MODEL,), tls=True))
    encryption.prepare()
    async with _kept(encryption) as (_, told):
        encryption.store.renew(datetime.now(UTC), all_roles=True)
        await eventually(lambda: len(told) == 1)
        encryption.store.add_authority(datetime.now(UTC))
        await eventually(lambda: len(told) == 2)


async def test_a_given_certificate_is_taken_and_one_that_cannot_be_used_is_reported_once(
    tmp_path: Path,
) -> None:
    encryption = Encryption(tmp_path / "tls", _give(tmp_path))
    encryption.prepare()
    good = encryption.store.read(GIVEN)
    async with _kept(encryption) as (reported, _):
        key = tmp_path / "given.key"
        key.chmod(0o644)
        await eventually(lambda: len(reported) == 1)
        assert f"run chmod 600 {key}" in reported[0]
        await asyncio.sleep(1.2)
        assert (len(reported), encryption.store.read(GIVEN)) == (1, good)
        key.chmod(0o600)
        _give(tmp_path)
        await eventually(lambda: len(reported) == 2)
        assert "given.crt, which has changed" in reported[1]
    assert encryption.store.read(GIVEN) != good


async def test_certificates_that_are_due_are_renewed_at_the_start(tmp_path: Path) -> None:
    options = MeshOptions((DEFAULT_MODEL,), tls=True)
    encryption = Encryption(tmp_path / "tls", options)
    encryption.store.prepare(datetime.now(UTC) - timedelta(days=80), ["127.0.0.1"])
    before = encryption.store.read("gateway")
    encryption.prepare()
    now = encryption.store.read("gateway")
    assert now.valid[1] - before.valid[1] > timedelta(days=79)


async def test_a_listener_on_every_address_has_all_of_them_in_its_certificate(
    tmp_path: Path,
) -> None:
    options = MeshOptions(
        (DEFAULT_MODEL,), host="0.0.0.0", insecure=True, tls=True, tls_names=("llm.example.com",)
    )
    encryption = Encryption(tmp_path / "tls", options)
    encryption.prepare()
    hosts = encryption.store.read(PUBLIC).hosts
    assert {"llm.example.com", "localhost", "127.0.0.1", socket.gethostname()} <= set(hosts)
