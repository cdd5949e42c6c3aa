"""Docs that can be checked, are: the architecture names what there is, and links lead somewhere."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from helpers.reference_tables import filled

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def prose(page: Path) -> str:
    """What of a page is no example."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> list[str]:
    """Of its headings, as GitHub makes them."""
    headings: list[str] = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return [re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in texts]


def links(page: Path) -> list[str]:
    """To files and headings of ours."""
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if "://" not in link]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_the_architecture_stays_short() -> None:
    assert len(ARCHITECTURE.read_text().splitlines()) <= 150


def test_the_architecture_has_a_line_for_every_package() -> None:
    text, missing = ARCHITECTURE.read_text(), []
    for top in sorted((ROOT / "services").glob("*/headrace*")):
        for init in sorted(top.rglob("__init__.py")):
            package = init.parent.relative_to(top)
            has_modules = any("_pb2" not in p.name for p in init.parent.glob("[a-z]*.py"))
            if package.parts and has_modules and f"`{package}`" not in text:
                missing.append(f"{top.name}/{package}")
    assert missing == []


def test_what_is_said_to_show_a_promise_is_there() -> None:
    shown = (ROOT / "docs" / "reliability.md").read_text().partition("### What is shown where")[2]
    kinds = "unit|contract|component|e2e|chaos|benchmarks"
    named: list[str] = re.findall(rf"`((?:{kinds})/[\w./-]+)`", shown)
    files = [name if "." in name else f"{name}.py" for name in named]
    paths = [ROOT / ("" if f.startswith("benchmarks/") else "tests") / f for f in files]
    assert len(paths) > 30
    assert [str(path) for path in paths if not path.exists()] == []


def test_the_tables_of_settings_and_metrics_are_those_of_the_code() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert filled(operations) == operations, "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_there_are(page: Path) -> None:
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_two_headings_of_a_page_are_alike(page: Path) -> None:
    assert [anchor for anchor, count in Counter(anchors(page)).items() if count > 1] == []


def test_links_are_seen_to_be_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n## The `second`, of [two](x)\n```\n# no heading\n```\n")
    good = ["#one", "#the-second-of-two", "page.md#one", "page.md"]
    bad = ["#two", "#no-heading", "other.md", "other.md#one", "page.md#two"]
    assert [leads_somewhere(page, link) for link in good] == [True] * len(good)
    assert [leads_somewhere(page, link) for link in bad] == [False] * len(bad)
