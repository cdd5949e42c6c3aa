"""What a checkout installs is pinned, all of it, within the ranges that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
UNPINNED = {"headrace", "pip"}
"""What pip brings itself, and what is installed from here."""


def pinned() -> dict[str, list[Requirement]]:
    """Every line of constraints.txt by its package: some have one pin for each Python."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [
        *project["dependencies"],
        *(t for name in extras if name != "vllm" for t in extras[name]),
    ]
    return [r for r in map(Requirement, texts) if r.name != "headrace"]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_a_requirement_has_a_pin_within_its_range(requirement: Requirement) -> None:
    pins = pinned().get(canonicalize_name(requirement.name))
    assert pins, f"{requirement.name} has no pin; run make lock"
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version, prereleases=True)


def test_torch_is_pinned_by_version_alone() -> None:
    (torch,) = pinned()["torch"]
    assert str(torch) == "torch==2.13.0"


def test_a_package_that_an_installation_brings_indirectly_is_pinned_too() -> None:
    pins = pinned()
    missing, seen, open_ = set(), set(), {canonicalize_name(r.name) for r in declared()}
    while open_:
        name = open_.pop()
        seen.add(name)
        if name not in pins:
            missing.add(name)
        try:
            brought = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform or Python
            continue
        for requirement in map(Requirement, brought):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_ |= {canonicalize_name(requirement.name)} - seen
    assert missing - UNPINNED == set(), "run make lock"
