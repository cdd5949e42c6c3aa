"""What some tests need of the machine. Where it is absent they are skipped, unless CI requires it.

`HEADRACE_REQUIRE=mount,ipv6` makes a skip for one of these kinds a failure, so that a suite that
ran nothing does not pass for one that passed.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

KINDS = {
    "mount": "a tmpfs can be mounted (root, or a user namespace)",
    "ipv6": "the loopback address ::1",
    "openssl": "the openssl command",
    "netns": "network namespaces (root and iproute2)",
    "gpu": "a GPU that torch finds",
    "postgres": "a PostgreSQL server",
    "chromium": "a Chromium browser",
    "buildah": "the buildah command",
    "node": "the node command",
}


def required_kinds() -> frozenset[str]:
    """Return the kinds that HEADRACE_REQUIRE names.

    Raises:
        pytest.UsageError: it names an unknown kind.
    """
    named = frozenset(os.environ.get("HEADRACE_REQUIRE", "").replace(",", " ").split())
    if unknown := named - KINDS.keys():
        raise pytest.UsageError(
            f"HEADRACE_REQUIRE names {sorted(unknown)}; known kinds are {sorted(KINDS)}"
        )
    return named


def lacks(kind: str, reason: str = "") -> NoReturn:
    """Skip the running test for want of `kind`, or fail it where the kind is required."""
    text = f"{kind}: this machine lacks {KINDS[kind]}" + (f" ({reason})" if reason else "")
    if kind in required_kinds():
        pytest.fail(f"{text}, and HEADRACE_REQUIRE requires it", pytrace=False)
    pytest.skip(text)


def needs_command(kind: str) -> str:
    """Return the path of the command of this name, or skip the test."""
    return shutil.which(kind) or lacks(kind)
