"""What multiplies beside the engine takes its team of threads with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT = """
import asyncio, os, sys, time, torch
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread

def threads():
    return len(os.listdir("/proc/self/task"))

def multiply():
    (torch.ones(512, 512) @ torch.ones(512, 512)).sum()
    return threads()

async def main():
    during = await {how}(multiply)
    deadline_s = time.monotonic() + float(sys.argv[1])
    while during - threads() < 2 and time.monotonic() < deadline_s:
        await asyncio.sleep(0.01)
    print(during - threads())

torch.set_num_threads(2)
asyncio.run(main())
"""


# An executor's thread stays, and so does its team. Where that is true no more, what is
# tried here can go.
@pytest.mark.parametrize(
    ("how", "patience_s", "ended"),
    [("run_in_dedicated_thread", 30, 2), ("asyncio.to_thread", 0.5, 0)],
)
def test_it_ends_and_its_team_with_it(how: str, patience_s: float, ended: int) -> None:
    command = (sys.executable, "-c", _COUNT.format(how=how), str(patience_s))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == ended
