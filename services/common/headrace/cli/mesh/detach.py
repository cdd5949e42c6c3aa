"""A mesh that outlives the command that starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
from rich.console import Console

from headrace.cli.mesh.progress import LiveTable, PlainLines, ProgressDisplay
from headrace.supervisor.plan.mesh_options import MeshOptions
from headrace.supervisor.state.failures import MeshRunning, ProcessFailed
from headrace.supervisor.state.state_dir import StateDir

PLAIN_OPTIONS = (
    *("workers", "gateways", "schedulers", "host", "port"),
    *("ready_within_s", "replace_after_s"),
)
"""Fields of MeshOptions that are options of the command under the same name."""


def start(options: MeshOptions) -> int:
    """Start `headrace up` in a session of its own and wait until it is ready; the exit status."""
    home = StateDir(options.state_dir)
    if home.is_locked:
        raise MeshRunning(f"a mesh is running in {home.folder}; end it with `headrace down`")
    home.require_space()
    home.logs.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    with home.supervisor_log.open("wb") as log:
        child = subprocess.Popen(
            # -P: a random.py in the current directory is not ours.
            [
                *(sys.executable, "-P", "-m", "headrace"),
                *_arguments(options),
                f"--tell-parent={write_end}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    try:
        return _wait(read_end, child, home)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise


def _wait(read_end: int, child: subprocess.Popen[bytes], home: StateDir) -> int:
    console = Console()
    shown: ProgressDisplay = LiveTable(console) if console.is_terminal else PlainLines()
    try:
        with os.fdopen(read_end, encoding="utf-8") as pipe:
            for line in pipe:
                match json.loads(line):
                    case {"ready": url}:
                        shown.settle()
                        click.echo(f"{url} is ready; logs in {home.logs}; end it: headrace down")
                        return 0
                    case {"failed": reason}:
                        shown.settle()
                        click.echo(f"headrace: {reason}", err=True)
                        child.wait()
                        return 1
                    case {"name": name, "fact": fact}:
                        shown.progress(name, fact)
    finally:
        shown.settle()
    raise ProcessFailed("the supervisor", f"ended with {child.wait()}", home.supervisor_log)


def _arguments(options: MeshOptions) -> Iterator[str]:
    """The command line that means `options`."""
    yield from ("up", "--state-dir", str(options.state_dir), "--engine", options.engine.value)
    for name in PLAIN_OPTIONS:
        yield f"--{name.removesuffix('_s').replace('_', '-')}={getattr(options, name)}"
    for model in options.models:
        yield f"--model={model.source}"
        yield f"--name={','.join((model.name, *model.aliases))}"
    for setting in options.settings:
        yield f"--set={setting.role.value}.{setting.name}={setting.value}"
