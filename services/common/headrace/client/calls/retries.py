"""When a call that failed is sent again. Pure.

A lane is full, then the gateway that has the call is killed; `Retries()`:

    error                                      attempt   pause
    LaneFull(retry_after_s=2)                  1         2 s: what the mesh says
    ConnectionLost, of a call that may repeat  2         up to 0.5 s
    ConnectionLost, of a file's upload         2         none: it may have arrived
    LaneFull(retry_after_s=120)                2         none: more than `within_s`
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.client.unreachable import ConnectionLost, MeshUnreachable
from headrace.errors import CapacityError, HeadraceError


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and for how long, a client sends a call again.

    What the mesh refused for want of capacity was not begun, so it is always safe to repeat. A call
    whose connection was lost is repeated where the mesh recognizes it, or where it changes nothing.
    """

    attempts: int = 4
    """Calls in all. 1: none is repeated. Too small: the restart of a gateway or of Envoy, which
    takes a second, is an error."""
    within_s: float = 60.0
    """From the first attempt to the begin of the last. Too large: a caller hears late that the
    mesh is full."""
    first_pause_s: float = 0.25
    """At most, where the mesh says no time; doubled for each attempt, up to `longest_pause_s`."""
    longest_pause_s: float = 8.0

    def pause_s(
        self,
        error: HeadraceError,
        *,
        attempt: int,
        elapsed_s: float,
        repeatable: bool,
        drawn: float,
    ) -> float | None:
        """Return how long to wait before the next attempt; None: there is none.

        Args:
            error: of the attempt.
            attempt: its number, from 1.
            elapsed_s: since the first attempt began.
            repeatable: the call may have arrived and be sent again all the same.
            drawn: in [0, 1), so that clients do not come back together.
        """
        if attempt >= self.attempts or not may_succeed(error, repeatable=repeatable):
            return None
        pause_s = error.retry_after_s
        if pause_s is None:
            bound_s = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (attempt - 1))
            pause_s = bound_s * (0.5 + drawn / 2)
        return pause_s if elapsed_s + pause_s <= self.within_s else None


NO_RETRIES = Retries(attempts=1)


def may_succeed(error: HeadraceError, *, repeatable: bool) -> bool:
    """Return whether the same call may succeed later, and may be sent again."""
    if isinstance(error, ConnectionLost):
        return repeatable
    if isinstance(error, MeshUnreachable):
        return error.may_pass
    return isinstance(error, CapacityError)
