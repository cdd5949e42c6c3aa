"""Services that are started by hand, without a broker at their address."""

from __future__ import annotations

import asyncio
import sys

import pytest

NOWHERE = "nats://a:secret@127.0.0.1:9"
MODEL = ("--engine=scripted", "--model-source=s", "--model-name=s")


@pytest.mark.parametrize(
    ("service", "more"), [("gateway", ()), ("scheduler", ()), ("worker", MODEL)]
)
async def test_a_service_logs_at_once_that_it_cannot_reach_its_broker_and_stops_at_sigterm(
    service: str, more: tuple[str, ...]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"headrace_{service}", "--nats-url", NOWHERE, *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(20):
            while b"bus.unreached" not in said:
                said = await process.stdout.readline()
                assert said
        assert b"connection refused" in said
        assert b"nats://127.0.0.1:9" in said
        assert b"secret" not in said
        process.terminate()
        async with asyncio.timeout(5):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
