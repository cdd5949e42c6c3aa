"""The worked examples of docs/switching, as they stand there, on one mesh of the model that ships.

Each page's Python is what ran before, and is not changed: its shell lines point it at the mesh. The
mesh has all names that the pages give the model, and a free port.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.running_mesh import RunningMesh, start, stop

PAGES = sorted((Path(__file__).parents[2] / "docs" / "switching").glob("*.md"))
EXAMPLE_S = 120.0
START_S = 240
pytestmark = pytest.mark.timeout(600)


def example(page: Path) -> tuple[str, str, str]:
    """Return the blocks of a page's worked example: Python, shell, and what is printed."""
    section = page.read_text().partition("\n## A worked example")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "sh", "text"], page.name
    python, shell, printed = (text for _, text in blocks)
    return python, shell, printed


def served_names() -> str:
    """Return all names of the model, of all pages, as `--model` takes them."""
    lines = [re.findall(r"headrace up .*--model valley=(\S+)", example(p)[1]) for p in PAGES]
    assert all(len(found) == 1 for found in lines), "each example starts one mesh"
    names = [name for (found,) in lines for name in found.split(",")]
    return ",".join(dict.fromkeys(["valley", *names]))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Its state directory is `.headrace` of a folder, as where `headrace up` was typed."""
    folder = tmp_path_factory.mktemp("switching") / ".headrace"
    model = f"valley={served_names()}"
    running = start(folder, "--auth", "keys", "--model", model, within_s=START_S)
    yield running
    stop(running)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_code_of_before_runs_on_the_mesh(mesh: RunningMesh, page: Path) -> None:
    python, shell, printed = example(page)
    folder = mesh.folder.parent
    (folder / "app.py").write_text(python)
    lines = [line for line in shell.splitlines() if not line.startswith("headrace up ")]
    assert "http://127.0.0.1:8080" in shell
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", "\n".join(lines).replace("http://127.0.0.1:8080", mesh.url)),
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(EXAMPLE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode() == printed
