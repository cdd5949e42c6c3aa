"""`headrace up --detach`: start a mesh in the background, wait until it is ready, return."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import click

from headrace.cli.mesh.progress import display
from headrace.supervisor.state.failures import MeshRunning, ProcessFailed
from headrace.supervisor.state.state_dir import StateDir


def start(state_dir: StateDir) -> int:
    """Run this command once more, in a session of its own; wait until its mesh is ready.

    Return the exit status.
    """
    if state_dir.is_locked:
        raise MeshRunning(f"a mesh is running in {state_dir.folder}; end it with `headrace down`")
    state_dir.require_space()
    state_dir.logs.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    with state_dir.supervisor_log.open("wb") as log:
        child = subprocess.Popen(
            # -P: Python must not import a random.py of the current directory.
            (*(sys.executable, "-P", "-m", "headrace", *sys.argv[1:]), f"--report-fd={write_end}"),
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
                        down = f"headrace down --state-dir {shlex.quote(str(state_dir.folder))}"
                        click.echo(f"{url} is ready; logs in {state_dir.logs}; end it: {down}")
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
