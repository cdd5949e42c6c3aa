"""The tables of docs/switching: what stands on our side of them exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headrace.cli.main import headrace
from headrace.supervisor.servers.assets import descriptor_set
from headrace.supervisor.servers.rest_paths import read_paths
from helpers.reference_tables import SETTINGS

FOLDER = Path(__file__).parents[2] / "docs" / "switching"
PAGES = sorted(FOLDER.glob("*.md"))


def options(command: click.Command) -> Iterator[str]:
    """Yield all options of a command and of those below it."""
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from options(below)


def settings() -> set[str]:
    return {f"{name}.{field}" for name, each in SETTINGS.items() for field in each.model_fields}


def our_side(page: Path) -> list[str]:
    """Return what stands in code type in all but the first column of a page's tables."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    cells = (cell for row in rows for cell in re.split(r"(?<!\\)\|", row)[2:])
    return [term for cell in cells for term in re.findall(r"`([^`]+)`", cell)]


def shell_blocks(page: Path) -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))


def test_there_is_a_page_for_each_that_people_come_from() -> None:
    assert [page.stem for page in PAGES] == ["fastchat", "litellm", "ollama", "openai", "vllm"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_and_settings_of_the_tables_exist(page: Path) -> None:
    ours = [*our_side(page), shell_blocks(page)]
    named = {flag for text in ours for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    fields = {
        f"--{field.replace('_', '-')}" for each in SETTINGS.values() for field in each.model_fields
    }
    assert named - set(options(headrace)) - fields - {"--nproc-per-node"} == set()
    held = {s for text in ours for s in re.findall(r"--set ([a-z]+\.\w+)", text)}
    assert held - settings() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_tables_exist(page: Path) -> None:
    ours = [*our_side(page), *shell_blocks(page).splitlines()]
    missing = []
    for text in ours:
        if found := re.match(r"headrace ([a-z-]+)(?: ([a-z-]+))?", text):
            command = headrace.commands.get(found[1])
            below = command.commands if isinstance(command, click.Group) else {found[2]: command}
            if command is None or (found[2] and found[2] not in below):
                missing.append(text)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_of_the_tables_are_served(page: Path) -> None:
    served = {
        re.sub(r"\{[^}]*\}|TENANT", "{}", str(path))
        for path in read_paths(descriptor_set().read_bytes())
    }
    missing = []
    for term in our_side(page):
        if re.fullmatch(r"(GET|POST) (/\S+)", term):
            path = re.sub(r"\{[^}]*\}|TENANT", "{}", term)
            if path not in served:
                missing.append(term)
    assert missing == []
