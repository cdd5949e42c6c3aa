"""Lines of an input file, however its bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from headrace_control.batches.lines import lines_of


def read(data: bytes, cuts: list[int], *, max_bytes: int = 100) -> list[tuple[int, bytes | None]]:
    async def pieces() -> AsyncIterator[bytes]:
        bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
        for start, end in itertools.pairwise(bounds):
            yield data[start:end]

    async def all_lines() -> list[tuple[int, bytes | None]]:
        return [each async for each in lines_of(pieces(), max_bytes=max_bytes)]

    return asyncio.run(all_lines())


@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)),
    st.lists(st.integers(0, 400)),
)
def test_each_line_that_is_not_blank_comes_with_its_number(
    lines: list[bytes], cuts: list[int]
) -> None:
    found = read(b"\n".join(lines), cuts)
    assert found == [(i, line) for i, line in enumerate(lines, 1) if line.strip()]


@given(st.lists(st.integers(0, 400)))
def test_a_line_that_is_too_long_comes_without_its_content(cuts: list[int]) -> None:
    data = b"a" * 100 + b"\n" + b"b" * 101 + b"\nc\n" + b"d" * 250
    assert read(data, cuts) == [(1, b"a" * 100), (2, None), (3, b"c"), (4, None)]
