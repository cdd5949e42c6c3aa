"""What OpenAI's usage API is asked for: parameters of a query, checked. Pure.

query = read_query(USAGE, {"start_time": ["1790000000"], "group_by[]": ["model"]}, now_s=…)
query.buckets[0]  # (1790000000, 1790035200)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import InvalidRequest

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
_WIDTHS = {"1m": MINUTE_S, "1h": HOUR_S, "1d": DAY_S}
_LATEST_S = 2**40
_IGNORED = ("api-version",)
_LISTS = ("project_ids", "user_ids", "api_key_ids", "models", "group_by")
_MAX_LIST = 100

Parameters = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one path takes."""

    names: frozenset[str]
    limits: Mapping[str, tuple[int, int]]
    """Default and most buckets, by their width."""
    groups: frozenset[str]


_COMMON = {"start_time", "end_time", "bucket_width", "limit", "page", "group_by"}
USAGE = Endpoint(
    names=frozenset({*_COMMON, "project_ids", "user_ids", "api_key_ids", "models", "batch"}),
    limits={"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)},
    groups=frozenset({"project_id", "user_id", "api_key_id", "model", "batch"}),
)
COSTS = Endpoint(
    names=frozenset({*_COMMON, "project_ids", "api_key_ids"}),
    limits={"1d": (7, 180)},
    groups=frozenset({"project_id", "user_id", "api_key_id", "line_item"}),
)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    buckets: tuple[tuple[int, int], ...]
    """Begin and end of each, in Unix seconds; not empty."""
    next_page: str
    """Empty: these are the last."""
    width_s: int
    lists: Mapping[str, tuple[str, ...]]
    """The filters and `group_by`, without those that are not given."""
    batch: bool | None = None

    @property
    def group_by(self) -> tuple[str, ...]:
        return self.lists.get("group_by", ())


def read_query(endpoint: Endpoint, parameters: Parameters, *, now_s: int) -> UsageQuery:
    """Return what a query asks for.

    Raises:
        InvalidRequest: a parameter is unknown, missing, or out of its range.
    """
    given = _by_name(endpoint, parameters)
    start = _integer(given, "start_time", None, 0, _LATEST_S)
    width = given.get("bucket_width", [""])[-1] or "1d"
    if width not in endpoint.limits:
        widths = ", ".join(endpoint.limits)
        raise InvalidRequest(
            f"bucket_width is {width[:20]!r}; it must be one of {widths}", field="bucket_width"
        )
    default, most = endpoint.limits[width]
    limit = _integer(given, "limit", default, 1, most) if given.get("limit") != ["0"] else default
    width_s = _WIDTHS[width]
    end = _integer(given, "end_time", 0, 0, _LATEST_S) or -(-(now_s + 1) // width_s) * width_s
    if end <= start:
        raise InvalidRequest(
            f"end_time is {end}, which is not after start_time, {start}", field="end_time"
        )
    begin = _page_begin(given, start, end)
    buckets: list[tuple[int, int]] = []
    while begin < end and len(buckets) < limit:
        until = min(begin // width_s * width_s + width_s, end)
        buckets.append((begin, until))
        begin = until
    lists = {name: tuple(given[name]) for name in _LISTS if given.get(name)}
    _check_groups(endpoint, lists.get("group_by", ()))
    next_page = f"page_{begin}" if begin < end else ""
    return UsageQuery(tuple(buckets), next_page, width_s, lists, _batch(given))


def _by_name(endpoint: Endpoint, parameters: Parameters) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for written, values in parameters.items():
        name = written.removesuffix("[]")
        if written in _IGNORED:
            continue
        if name not in endpoint.names or (written != name and name not in _LISTS):
            raise InvalidRequest(
                f"unknown parameter {written[:64]!a}; there are"
                f" {', '.join(sorted(endpoint.names))}",
                field=written[:64],
            )
        given.setdefault(name, []).extend(values)
        if len(given[name]) > _MAX_LIST:
            raise InvalidRequest(
                f"{name} has {len(given[name])} values; at most {_MAX_LIST} are allowed", field=name
            )
    return given


def _integer(
    given: Mapping[str, Sequence[str]], name: str, default: int | None, least: int, most: int
) -> int:
    text = given[name][-1] if given.get(name) else ""
    if not text and default is not None:
        return default
    if not text:
        raise InvalidRequest(f"{name} is missing; give Unix seconds", field=name)
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else -1
    if not least <= value <= most:
        raise InvalidRequest(
            f"{name} is {text[:40]!a}; it must be an integer from {least} to {most}", field=name
        )
    return value


def _page_begin(given: Mapping[str, Sequence[str]], start: int, end: int) -> int:
    page = given["page"][-1] if given.get("page") else ""
    if not page:
        return start
    number = page.removeprefix("page_")
    at = int(number) if number.isascii() and number.isdecimal() and len(number) < 16 else -1
    if not page.startswith("page_") or not start <= at < end:
        raise InvalidRequest(
            f"page is {page[:40]!a}, which is no next_page of this query", field="page"
        )
    return at


def _check_groups(endpoint: Endpoint, group_by: Sequence[str]) -> None:
    for each in group_by:
        if each not in endpoint.groups:
            raise InvalidRequest(
                f"group_by has {each[:40]!a}; it may have {', '.join(sorted(endpoint.groups))}",
                field="group_by",
            )


def _batch(given: Mapping[str, Sequence[str]]) -> bool | None:
    text = given["batch"][-1] if given.get("batch") else ""
    if text.lower() not in ("", "true", "false"):
        raise InvalidRequest(f"batch is {text[:20]!a}; it must be true or false", field="batch")
    return text.lower() == "true" if text else None
