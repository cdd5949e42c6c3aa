"""The light ones among other people's clients; `make test-clients` has all."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(600)
async def test_the_light_clients_pass() -> None:
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.run", "--light"),
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await run.communicate()
    assert run.returncode == 0, out.decode()
