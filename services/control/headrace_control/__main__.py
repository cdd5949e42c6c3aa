"""python -m headrace_control"""

from __future__ import annotations

import sys

from headrace.settings import settings_main
from headrace_control.app import run
from headrace_control.base.settings import ControlSettings

if __name__ == "__main__":
    sys.exit(settings_main(ControlSettings, run))
