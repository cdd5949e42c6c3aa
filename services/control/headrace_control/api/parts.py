"""What the services of the API are made of."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.bus import Bus
from headrace.clock import Clock
from headrace_control.base.settings import ControlSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """Each service takes these as its one argument."""

    settings: ControlSettings
    bus: Bus
    clock: Clock
