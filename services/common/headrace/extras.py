"""Optional dependencies, and the extra of the distribution that installs each.

`pip install headrace` brings the client and the command line. Whatever needs more imports it where
it is used, through `require` or `require_binary`, so that its absence is one message that names the
extra.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib import import_module
from pathlib import Path
from types import ModuleType


class MissingExtra(Exception):
    """An optional dependency is not installed; the text says how to install it."""

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(
            f"this needs the {extra} extra: pip install 'headrace[{extra}]' ({missing})"
        )


def require(extra: str, module: str) -> ModuleType:
    """Import and return a module that `extra` installs.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # a fault of the module itself
        raise MissingExtra(extra, f"there is no module {module}") from error


def require_package(extra: str, package: str) -> ModuleType:
    """Import and return a package of Headrace's own, which imports what `extra` installs.

    Raises:
        MissingExtra: something that it imports is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("headrace"):
            raise  # a fault of the package itself
        raise MissingExtra(extra, f"there is no module {error.name}") from error


def require_binary(extra: str, name: str) -> str:
    """Return the path of an executable that `extra` installs: beside Python's, else on PATH.

    Raises:
        MissingExtra: it is not installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingExtra(extra, f"{name} is neither at {beside} nor on PATH")
    return found
