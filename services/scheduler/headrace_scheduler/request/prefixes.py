"""Which workers hold which prefixes in their caches, as far as they have reported."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.prefixes import (
    BLOCK_TOKENS,
    adapter_root,
    block_hashes,
    root_hash,
    salted_root,
    short_hash,
)


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The longest prefix of a prompt that any worker holds."""

    tokens: int = 0
    worker_ids: Set[str] = field(default_factory=frozenset)


NO_MATCH = PrefixMatch()


class PrefixDirectory:
    """Block names by worker and workers by block name; bounded by what workers may report."""

    def __init__(self) -> None:
        self._names: dict[str, set[int]] = {}
        self._holders: dict[int, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._holders)

    def apply_report(self, report: PrefixReport) -> None:
        if report.full:
            self.forget(report.worker_id)
        self._drop(report.worker_id, report.dropped)
        names = self._names.setdefault(report.worker_id, set())
        for name in report.held:
            names.add(name)
            self._holders.setdefault(name, set()).add(report.worker_id)

    def forget(self, worker_id: str) -> None:
        """Remove a worker and all that it held."""
        self._drop(worker_id, tuple(self._names.get(worker_id, ())))
        self._names.pop(worker_id, None)

    def _drop(self, worker_id: str, names: Iterable[int]) -> None:
        known = self._names.get(worker_id, set())
        for name in names:
            if name in known:
                known.discard(name)
                holders = self._holders[name]
                holders.discard(worker_id)
                if not holders:
                    del self._holders[name]

    def longest_match(self, names: Sequence[int]) -> PrefixMatch:
        """Return the longest prefix of these blocks that is held; costs a look-up for each."""
        held: set[str] | None = None
        count = 0
        for name in names:
            if (holders := self._holders.get(name)) is None:
                break
            held, count = holders, count + 1
        return NO_MATCH if held is None else PrefixMatch(count * BLOCK_TOKENS, held)

    def check_integrity(self) -> None:
        """Raise AssertionError if the two indices disagree."""
        pairs = {(name, worker) for worker, names in self._names.items() for name in names}
        assert pairs == {(name, worker) for name, held in self._holders.items() for worker in held}
        assert all(self._holders.values()), "a block without a holder"


def prefix_block_names(record: RequestRecord) -> tuple[int, ...]:
    """Return the names of the prompt's blocks that a worker need not compute if it holds them.

    There are none where any weights will do, because names depend on the weights.
    """
    prompt_ids = record.prompt_ids
    if not record.weights_digest or len(prompt_ids) <= BLOCK_TOKENS:
        return ()
    root = adapter_root(root_hash(record.weights_digest), record.adapter_digest)
    root = salted_root(root, record.cache_salt)
    # Why not the last token: it is always computed, for the first token of the output.
    return tuple(map(short_hash, block_hashes(array("q", prompt_ids[:-1]), root)))
