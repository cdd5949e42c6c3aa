"""Connecting to a broker, and the reasons why there is no connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import connect
from headrace.testing.nats_server import nats_server
from helpers.environment import needs_command


async def test_many_vain_attempts_to_connect_all_end_at_their_time() -> None:
    """The client loses a cancellation now and then, and would go on for ever."""
    attempts = (
        connect("nats://127.0.0.1:9,nats://[::1]:9", name="test", wait_s=0.3) for _ in range(50)
    )
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*attempts, return_exceptions=True)
    assert {type(end) for end in ends} == {BusUnavailable}


PASSWORD = "authorization { user: a, password: b }"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nats://127.0.0.1:9", "connection refused; is a server running there?"),
        ("nats://a:secret@127.0.0.1:9,nats://[::1]:9", "at nats://127.0.0.1:9, nats://[::1]:9: "),
        ("nats://no.such.host.invalid:4222", "its name cannot be looked up"),
        ("http://127.0.0.1:9", "is not a URL of NATS; write nats://host:4222"),
        ("nats://[::1:4222", "is not a URL of NATS"),
        ("", "is not a URL of NATS"),
    ],
)
async def test_a_broker_that_is_not_there_is_reported_with_its_address(
    url: str, reason: str
) -> None:
    with pytest.raises(BusUnavailable) as failed:
        await connect(url, name="test", wait_s=0.5)
    assert reason in str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("more", "jetstream", "user", "reason"),
    [
        ("", False, "", "JetStream is not enabled there"),
        ("jetstream { max_file_store: 1MB }", False, "", "JetStream: insufficient storage"),
        (PASSWORD, True, "", "it refuses this user, password or token"),
        (PASSWORD, True, "a:secret@", "it refuses this user, password or token"),
    ],
)
async def test_a_broker_that_cannot_be_used_is_reported_with_the_reason(
    tmp_path: Path, more: str, jetstream: bool, user: str, reason: str
) -> None:
    async with nats_server(tmp_path, jetstream=jetstream, more=more) as server:
        with pytest.raises(BusUnavailable) as failed:
            await connect(f"nats://{user}127.0.0.1:{server.port}", name="test", wait_s=1.0)
    assert reason in str(failed.value)
    assert "secret" not in str(failed.value)


async def test_the_error_of_an_untrusted_broker_names_the_setting_for_its_authority(
    tmp_path: Path,
) -> None:
    openssl = needs_command("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = await asyncio.create_subprocess_exec(
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker"),
        *("-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    more = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    async with nats_server(tmp_path, more=more) as server:
        with pytest.raises(BusUnavailable, match=r"certificate is not trusted: .*SSL_CERT_FILE"):
            await connect(server.url, name="test", wait_s=1.0)


async def test_a_broker_is_reached_over_ipv6(tmp_path: Path) -> None:
    async with nats_server(tmp_path, host="::1") as server:
        bus = await connect(server.url, name="test", wait_s=5.0)
        assert bus.server == f"[::1]:{server.port}"
        await bus.close()
