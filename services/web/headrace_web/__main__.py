"""python -m headrace_web"""

from __future__ import annotations

import sys

from headrace.settings import settings_main
from headrace_web.app import run
from headrace_web.base.settings import WebSettings

if __name__ == "__main__":
    sys.exit(settings_main(WebSettings, run))
