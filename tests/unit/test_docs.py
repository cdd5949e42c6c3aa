"""Docs that can be checked, are: the architecture names what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.reference_tables import filled

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
UNNAMED = {"__init__", "__main__"}


def test_the_architecture_stays_short() -> None:
    assert len(ARCHITECTURE.read_text().splitlines()) <= 150


def test_the_architecture_names_every_module() -> None:
    words = set(re.findall(r"[a-z_0-9]+", ARCHITECTURE.read_text()))
    sources = (ROOT / "services").glob("*/headrace*/**/*.py")
    modules = {
        p.stem: p.relative_to(ROOT)
        for p in sources
        if p.stem not in UNNAMED and "_pb2" not in p.stem and p.parent.name not in ("cli", "bench")
    }
    missing = {str(path) for name, path in modules.items() if name not in words}
    assert missing - {"services/common/headrace/testing/nats_server.py"} == set()


def test_the_tables_of_settings_and_metrics_are_those_of_the_code() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert filled(operations) == operations, "run make docs"
