"""The walk of docs/access.md: two tenants, two keys, one revoked, and what openai's client prints.

Its blocks run as they stand there, but for a free port and the scripted engine in place of a model.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helpers.command import headrace

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
HEADING = "## Two tenants, step by step"
WALK_S = 60.0


def blocks() -> list[tuple[str, str]]:
    """Return language and text of the section's blocks."""
    section = PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


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


@pytest.mark.timeout(120)
async def test_the_walk_reads_as_the_page_says(folder: Path) -> None:
    begin, python, end, printed = (text for _, text in blocks())
    await run(folder, "bash", "-ec", begin.replace("--auth", "--port 0 --engine scripted --auth"))
    status = json.loads((await headrace("status", "--json", folder=folder)).out)
    script = python.replace("http://127.0.0.1:8080", status["url"])
    before = await run(folder, sys.executable, "-c", script)
    assert before == "acme ['scripted']\nbolt ['scripted']\n"
    await run(folder, "bash", "-ec", end)
    after = await run(folder, sys.executable, "-c", script)
    assert after == printed.replace("valley", "scripted")
