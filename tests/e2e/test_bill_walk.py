"""The walk of docs/usage.md: a limit is met and waited for, the bill is read, the month is closed.

Its blocks run as they stand there, but for a free port and the scripted engine in place of a model.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from helpers.command import headrace

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
HEADING = "## A quota and a bill, step by step"
WALK_S = 120.0
INPUT_PRICE, OUTPUT_PRICE = 150_000, 600_000
"""Nano-units a token, of the page's prices."""


def blocks() -> list[str]:
    """Return the section's blocks, as they are with the scripted engine."""
    section = PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    return [
        text.replace("valley", "scripted")
        for text in re.findall(r"```\w+\n(.*?)```", section, re.S)
    ]


async def run(folder: Path, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(WALK_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    await headrace("down", folder=tmp_path)


@pytest.mark.timeout(300)
async def test_the_walk_reads_as_the_page_says(folder: Path) -> None:
    begin, python, printed, end = blocks()
    await run(folder, "bash", "-ec", begin.replace("--auth", "--port 0 --engine scripted --auth"))
    status = json.loads((await headrace("status", "--json", folder=folder)).out)
    script = python.replace("http://127.0.0.1:8080", status["url"])
    began_s = time.monotonic()
    assert await run(folder, sys.executable, "-c", script) == printed
    assert time.monotonic() - began_s > 60, "a slot of a minute is free again after a minute"
    bill = await run(folder, "bash", "-ec", end)
    assert re.search(r"requests_per_minute +tenants/acme +- +1 +2 +3 ", bill)
    assert re.search(r"acme +scripted +4 ", bill)
    assert ": open, as of " in bill
    assert ": closed, number 1\n" in bill
    month = time.strftime("%Y-%m", time.gmtime())
    of = ("--tenant", "acme", "--month", month, "--json")
    statement = json.loads((await headrace("usage", "statement", *of, folder=folder)).out)
    (line,) = statement["lines"]
    assert (line["requests"], statement["state"]) == (4, "closed"), statement
    nanos = INPUT_PRICE * int(line["input_tokens"]) + OUTPUT_PRICE * int(line["output_tokens"])
    owed = Decimal(nanos).scaleb(-9)
    assert Decimal(statement["exact_amount"]) == owed, statement
    assert f"total: {round(owed, 2)} USD" in bill
