"""`headrace up --detach`: start a mesh in the background, wait until it is ready, return."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click

from headrace.cli.mesh.progress import display
from headrace.supervisor.plan.mesh_options import MeshOptions
from headrace.supervisor.state.failures import MeshRunning, ProcessFailed
from headrace.supervisor.state.state_dir import StateDir

SAME_NAME_OPTIONS = (
    *("workers", "gateways", "schedulers", "host", "port"),
    *("ready_within_s", "replace_after_s"),
)
"""Fields of MeshOptions that are options of the command under the same name."""


def start(options: MeshOptions, state_dir: StateDir) -> int:
    """Start `headrace up` in a session of its own and wait until it is ready; the exit status."""
    if state_dir.is_locked:
        raise MeshRunning(f"a mesh is running in {state_dir.folder}; end it with `headrace down`")
    state_dir.require_space()
    state_dir.logs.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    with state_dir.supervisor_log.open("wb") as log:
        child = subprocess.Popen(
            # -P: Python must not import a random.py of the current directory.
            [
                *(sys.executable, "-P", "-m", "headrace"),
                *_arguments(options, state_dir),
                f"--report-fd={write_end}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    try:
        return _wait(read_end, child, state_dir)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise


def _wait(read_end: int, child: subprocess.Popen[bytes], state_dir: StateDir) -> int:
    shown = display()
    try:
        with os.fdopen(read_end, encoding="utf-8") as pipe:
            for line in pipe:
                match json.loads(line):
                    case {"ready": url}:
                        shown.finish()
                        ready = f"{url} is ready; logs in {state_dir.logs}; end it: headrace down"
                        click.echo(ready)
                        return 0
                    case {"failed": reason}:
                        shown.finish()
                        click.echo(f"headrace: {reason}", err=True)
                        child.wait()
                        return 1
                    case {"name": name, "fact": fact}:
                        shown.progress(name, fact)
    finally:
        shown.finish()
    raise ProcessFailed("the supervisor", f"ended with {child.wait()}", state_dir.supervisor_log)


def _arguments(options: MeshOptions, state_dir: StateDir) -> Iterator[str]:
    """Yield the command line that gives these options."""
    yield from ("up", "--state-dir", str(state_dir.folder), "--engine", options.engine.value)
    for name in SAME_NAME_OPTIONS:
        yield f"--{name.removesuffix('_s').replace('_', '-')}={getattr(options, name)}"
    for model in options.models:
        yield f"--model={model.source}"
        yield f"--name={','.join((model.name, *model.aliases))}"
    for setting in options.settings:
        yield f"--set={setting.role.value}.{setting.name}={setting.value}"
