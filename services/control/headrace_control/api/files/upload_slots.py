"""How many files are received at once: each holds a connection, and some buffers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.errors import ControlUnavailable

RETRY_S = 1.0


class UploadSlots:
    """One tenant has at most a quarter of them, so that it cannot keep others from uploading."""

    def __init__(self, slots: int) -> None:
        self._slots, self._of_tenant = slots, max(1, slots // 4)
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """Hold a slot for the length of a `with`.

        Raises:
            ControlUnavailable: there is none.
        """
        for taken, slots, whose in (
            (self._taken[tenant], self._of_tenant, f"tenant {tenant}"),
            (self._taken.total(), self._slots, "this process"),
        ):
            if taken >= slots:
                raise ControlUnavailable(
                    f"{whose} uploads {taken} files already, which is the most at once; retry in"
                    f" {RETRY_S:g} s",
                    retry_after_s=RETRY_S,
                )
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
