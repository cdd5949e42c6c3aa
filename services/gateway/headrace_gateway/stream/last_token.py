"""The time of the last token, of canaries and callers alike."""

from __future__ import annotations

from headrace.clock import Clock


class LastTokenClock:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s: float | None = None

    def record_token(self) -> None:
        self._last_s = self._clock.monotonic_s()

    def age_s(self) -> float | None:
        """Return the time since the last token; None if there was none. Thread-safe."""
        last_s = self._last_s
        return None if last_s is None else self._clock.monotonic_s() - last_s

    def within(self, window_s: float) -> bool:
        """Return whether a token came in the last `window_s`. Thread-safe."""
        return self._last_s is not None and self._clock.monotonic_s() - self._last_s < window_s
