"""What calls of the bus raise."""

from __future__ import annotations


class BusError(Exception):
    """Nothing is known to have happened; the same call may be repeated."""


class BusUnavailable(BusError):
    """The broker cannot be reached, or did not answer in time."""


class StoreRefused(BusError):
    """The broker answers that it cannot store the message."""


class NoReply(BusError):
    """No process serves this subject, or it did not reply in time."""


class NoResponders(NoReply):
    """No process serves this subject: it has ended, or cannot reach the broker."""


class LaneLimitReached(BusError):
    """The broker holds as many unsettled requests of this lane as it may; nothing was stored."""


class LaneBroken(BusError):
    """A message of the lane was lost on its way; take the lane over again to receive it."""


class LeaseTaken(BusError):
    """Another process holds the lease."""
