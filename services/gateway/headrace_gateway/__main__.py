"""`python -m headrace_gateway`."""

from __future__ import annotations

import sys

from headrace.settings import settings_main
from headrace_gateway.app import run
from headrace_gateway.base.settings import GatewaySettings

if __name__ == "__main__":
    sys.exit(settings_main(GatewaySettings, run))
