"""The cache in memory never holds more than its bound, nor anything for longer than its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_gateway.cache.lru import OVERHEAD_BYTES, BoundedCache

_KEYS = st.integers(0, 8)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.integers(0, 600)),
        st.tuples(st.just("get"), _KEYS, st.integers(0, 5)),
        st.tuples(st.just("group"), st.integers(0, 1), st.just(0)),
    )
)


@given(_STEPS)
def test_whatever_happens_it_is_bounded_and_returns_what_was_put_last(
    steps: list[tuple[str, int, int]],
) -> None:
    cache, last = BoundedCache[int, tuple[int, int]](1500, ttl_s=10), dict[int, tuple[int, int]]()
    ends = dict[int, float]()
    now_s = 0.0
    for number, (kind, key, size) in enumerate(steps):
        match kind:
            case "put":
                last[key], ends[key] = (key, number), now_s + 10
                cache.put(key, (key, number), size, group=str(key % 2), now_s=now_s)
            case "get":
                now_s += size
                found = cache.get(key, now_s)
                assert found in (None, last.get(key))
                assert found is None or now_s < ends[key]
            case _:
                cache.remove_group(str(key))
                assert all(cache.get(k, now_s) is None for k in range(9) if k % 2 == key)
        cache.check_integrity()


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = BoundedCache[str, int](3 * (OVERHEAD_BYTES + 10), ttl_s=10)
    for key in "abc":
        cache.put(key, 1, 10, group="", now_s=0)
    assert cache.get("a", 1) == 1
    cache.put("d", 1, 10, group="", now_s=1)
    assert [key for key in "abcd" if cache.has(key)] == ["a", "c", "d"]


def test_what_is_larger_than_the_cache_drives_nothing_out() -> None:
    cache = BoundedCache[str, int](1000, ttl_s=10)
    cache.put("a", 1, 10, group="", now_s=0)
    cache.put("b", 1, 1000, group="", now_s=0)
    assert (cache.get("a", 0), cache.get("b", 0)) == (1, None)
