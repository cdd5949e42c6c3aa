"""Runs a program that dies with its parent: `parent_watch.py PARENT_PID PROGRAM [ARGUMENT ...]`.

Why a script: a `preexec_fn` may deadlock in a process with threads. The kernel's parent-death
signal outlives the exec, so the program keeps this process's id and is killed however the parent
ends, SIGKILL included.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # Why: a parent that died before prctl sends no signal.
    if os.getppid() != parent:
        sys.exit(f"parent {parent} is gone; {program[0]} was not started")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
