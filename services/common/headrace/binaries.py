"""Where the servers are that pip brought: beside this interpreter, else on PATH."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path


def find(name: str, *, package: str) -> str:
    """Path of an executable.

    Raises:
        FileNotFoundError: it is nowhere; the text names the package that has it.
    """
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither at {beside} nor on PATH; pip install {package}")
    return found
