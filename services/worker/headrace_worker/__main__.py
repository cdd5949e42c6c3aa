"""python -m headrace_worker"""

from __future__ import annotations

import sys

from headrace.settings import settings_main
from headrace_worker.app import run
from headrace_worker.settings import WorkerSettings

sys.exit(settings_main(WorkerSettings, run))
