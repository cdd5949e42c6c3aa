"""The zones that the package `tzdata` has: the same on every machine, whatever its files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def time_zones() -> frozenset[str]:
    """Return their IANA names."""
    return frozenset((files("tzdata") / "zones").read_text().split())
