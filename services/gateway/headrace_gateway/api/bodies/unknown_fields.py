"""Pure room: collects the unknown and ignored fields of a body while it is parsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

_MOST_NAMED = 16
_LONGEST_NAME = 64
_PLAIN = "[]._-"


@dataclass(slots=True)
class UnknownFields:
    """Fields of one body that are not known, and known ones that have no effect."""

    strict: bool = True
    """Unknown fields are refused, and so never noted."""
    named: dict[str, None] = field(default_factory=dict)
    """Some of the unknown, in order: `messages[].foo`."""
    count: int = 0
    """Of all of them."""
    ignored: set[str] = field(default_factory=set)
    """Of the tables' names alone."""

    def note(self, place: str, name: str) -> None:
        self.count += 1
        if len(self.named) < _MOST_NAMED:
            self.named[f"{place}{name[:_LONGEST_NAME]}"] = None

    @property
    def header(self) -> str:
        """Return a bounded list for a header, in ASCII; empty if all fields are known."""
        names = [quote(name, safe=_PLAIN) for name in self.named]
        more = self.count - len(names)
        return ", ".join([*names, f"and {more} more"] if more > 0 else names)

    def labels(self) -> Iterator[str]:
        """Yield labels for a metric: names that callers cannot create."""
        yield from sorted(self.ignored)
        if self.count:
            yield "unknown"


def split_known(
    entry: Mapping[str, object], known: frozenset[str], place: str, unknown: UnknownFields
) -> tuple[dict[str, object], str | None]:
    """Return the known fields of an entry; and the first unknown one where these are refused."""
    kept: dict[str, object] = {}
    for name, value in entry.items():
        if name in known:
            kept[name] = value
        elif unknown.strict:
            return kept, name
        else:
            unknown.note(place, name)
    return kept, None
