"""The earliest entry is known at any moment, and removed entries leave nothing behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_scheduler.state.lazy_heap import NEVER, SLACK, LazyHeap

MOVES = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.floats(0, 10)))


@given(MOVES)
def test_the_first_time_is_the_least_of_the_ids_in_it(
    moves: list[tuple[str, float | None]],
) -> None:
    heap, there = LazyHeap(), dict[str, float]()
    for request_id, at_s in moves:
        if at_s is not None:
            heap.put(request_id, at_s)
            there[request_id] = at_s
        elif request_id in there:
            heap.remove(request_id)
            del there[request_id]
        assert heap.first_s == min(there.values(), default=NEVER)
        heap.check_integrity(set(there))


@given(MOVES, st.floats(0, 10))
def test_popping_yields_each_due_id_once_in_order_of_time(
    moves: list[tuple[str, float | None]], now_s: float
) -> None:
    heap, there = LazyHeap(), dict[str, float]()
    for request_id, at_s in moves:
        if at_s is not None:
            heap.put(request_id, at_s)
            there[request_id] = at_s
    popped = list(heap.pop_until(now_s))
    assert set(popped) == {i for i, at_s in there.items() if at_s <= now_s}
    assert [there[i] for i in popped] == sorted(there[i] for i in popped)
    heap.check_integrity(there.keys() - set(popped))


def test_an_id_that_is_put_back_while_it_is_popped_comes_again_if_it_is_due() -> None:
    heap, popped = LazyHeap(), list[str]()
    heap.put("a", 1.0)
    for request_id in heap.pop_until(3.0):
        popped.append(request_id)
        heap.put("a", 1.0 + len(popped))
    assert popped == ["a", "a", "a"]
    assert heap.time_s("a") == 4.0


def test_removed_ids_take_no_memory_however_many_come_and_go() -> None:
    heap = LazyHeap()
    heap.put("stays", 0.0)
    for n in range(3 * SLACK):
        heap.put(f"r{n}", 1.0 + n)
        heap.remove(f"r{n}")
    heap.put("last", 5000.0)
    assert heap.first_s == 0.0
    assert len(heap) <= SLACK + 4
