"""python -m headrace_worker"""

from __future__ import annotations

import os
import sys

from headrace.settings import settings_main
from headrace_worker.app import run
from headrace_worker.base.settings import WorkerSettings

# Read by OpenMP when torch loads it. Long enough for a barrier that all are on their way to;
# by default a thread spins for milliseconds, on the very core that another one waits for.
environment = os.environ  # noqa: TID251  # nothing of ours reads it
if "OMP_WAIT_POLICY" not in environment:
    environment.setdefault("GOMP_SPINCOUNT", "1000")

sys.exit(settings_main(WorkerSettings, run))
