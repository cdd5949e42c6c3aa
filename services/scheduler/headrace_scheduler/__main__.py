"""python -m headrace_scheduler"""

from __future__ import annotations

import sys

from headrace.settings import settings_main
from headrace_scheduler.app import run
from headrace_scheduler.base.settings import SchedulerSettings

if __name__ == "__main__":
    sys.exit(settings_main(SchedulerSettings, run))
