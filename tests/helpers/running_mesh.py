"""A whole mesh, started and ended by the command, for tests that share one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND_S = 240


@dataclass(frozen=True)
class RunningMesh:
    """Its state is in `folder`."""

    folder: Path
    url: str
    model: str
    """The served name."""


def start(folder: Path, *options: str, within_s: float = COMMAND_S) -> RunningMesh:
    """`headrace up --detach` with these options, on a free port."""
    up = _headrace(
        "up", "--detach", "--port", "0", "--no-web", *options, folder=folder, within_s=within_s
    )
    assert up.returncode == 0, up.stdout + up.stderr
    status = json.loads(_headrace("status", "--json", folder=folder).stdout)
    return RunningMesh(folder, status["url"], status["models"][0]["id"])


def stop(mesh: RunningMesh) -> None:
    _headrace("down", folder=mesh.folder)


def _headrace(
    *arguments: str, folder: Path, within_s: float = COMMAND_S
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments, "--state-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=within_s,
    )
