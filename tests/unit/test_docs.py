"""Docs that can be checked, are: the architecture names what there is, and links lead somewhere."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from helpers import reference_tables

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CHANGELOG = ROOT / "CHANGELOG.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


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
    pages = [page.read_text() for page in reference_tables.PAGES]
    assert [reference_tables.filled(page) for page in pages] == pages, "run make docs"
    for name in reference_tables.tables():
        assert "".join(pages).count(f"<!-- {name} -->\n") == 1, f"no page has a place for {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_there_are(page: Path) -> None:
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != CHANGELOG], ids=lambda page: page.name
)
def test_no_two_headings_of_a_page_are_alike(page: Path) -> None:
    assert [anchor for anchor, count in Counter(anchors(page)).items() if count > 1] == []


def test_links_are_seen_to_be_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n## The `second`, of [two](x)\n```\n# no heading\n```\n")
    good = ["#one", "#the-second-of-two", "page.md#one", "page.md"]
    bad = ["#two", "#no-heading", "other.md", "other.md#one", "page.md#two"]
    assert [leads_somewhere(page, link) for link in good] == [True] * len(good)
    assert [leads_somewhere(page, link) for link in bad] == [False] * len(bad)


ADRS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
ADR_HEADINGS = ["Status", "Date", "Context", "Options considered", "Decision", "Consequences"]


@pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.stem[:4])
def test_a_decision_has_the_headings_of_the_template(adr: Path) -> None:
    text = adr.read_text()
    assert re.findall(r"^\*\*([\w ]+)\.\*\*", text, flags=re.MULTILINE) == ADR_HEADINGS
    assert text.startswith(f"# {int(adr.name[:4])}. ")
    options = text.partition("**Options considered.**")[2].partition("**Decision.**")[0]
    assert options.count("\n- ") >= 2
    assert f"]({adr.name})" in (adr.parent / "index.md").read_text()


def test_both_readmes_have_the_same_commands_and_links() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
    for pattern in (r"^```.*?^```", r"\]\(([^)\s]+\.(?:md|txt|toml)[^)\s]*|docs/adr|LICENSE)\)"):
        both = [
            re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE) for text in (english, chinese)
        ]
        same = [[link for link in found if not link.startswith("README")] for found in both]
        assert same[0] == same[1]


def source_text() -> str:
    """All of services/ without generated stubs."""
    sources = (p for p in (ROOT / "services").rglob("*.py") if "_pb2" not in p.name)
    return "\n".join(path.read_text() for path in sources)


def terms(pages: list[Path]) -> set[str]:
    """What these pages set in code type within prose and tables."""
    return {term for page in pages for term in re.findall(r"`([^`\n]+)`", prose(page))}


EVENT = (
    r"(engine|gpu|lease|model|adapter|tokenizer|upstream|precision)\.(?!py|json|safetensors)[a-z_]+"
)


def test_log_events_settings_and_metrics_that_a_page_names_exist() -> None:
    """Events are `topic.fact`, settings `service.name` or in a table, metrics have a prefix."""
    source = source_text()
    tables = "".join(reference_tables.tables().values())
    named = terms([page for page in PAGES if page.parent.name == "docs"])
    services = {name: set(s.model_fields) for name, s in reference_tables.SETTINGS.items()}
    missing = []
    for term in sorted(named):
        if found := re.fullmatch(r"(gateway|scheduler|worker)\.(?!py)(\w+)(=.*)?", term):
            exists = found[2] in services[found[1]]
        elif found := re.fullmatch(r"((?:headrace_|vllm:)\w+)(\{.*)?", term):
            exists = found[1] in tables or found[1] in source
        elif re.fullmatch(EVENT, term):
            exists = f'"{term}"' in source
        else:
            continue
        if not exists:
            missing.append(term)
    assert missing == []


def test_files_that_the_contributing_guide_names_exist() -> None:
    found = terms([ROOT / "docs" / "contributing.md"])
    paths = [term for term in found if re.fullmatch(r"[\w./-]+/[\w.-]+", term) and "<" not in term]
    roots = [ROOT, *(ROOT / "services").glob("*/"), *(ROOT / "services").glob("*/headrace*/")]
    missing = [p for p in paths if not any((root / p).exists() for root in roots)]
    assert len(paths) > 20
    assert missing == []


def test_the_site_has_a_place_for_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = [
        str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")
    ]
    assert [page for page in pages if page not in navigation] == []
