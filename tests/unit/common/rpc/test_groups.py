"""What goes over a stream goes in groups."""

from __future__ import annotations

import asyncio

from headrace.rpc.groups import Groups


async def test_the_first_entry_goes_at_once_and_what_follows_goes_together() -> None:
    groups: Groups[int] = Groups(every_s=0.05, max_bytes=100)
    groups.add(1, size=1)
    assert await groups.next() == [1]
    began_s = asyncio.get_running_loop().time()
    next_group = asyncio.create_task(groups.next())
    for entry in (2, 3, 4):
        await asyncio.sleep(0)
        groups.add(entry, size=1)
    assert await next_group == [2, 3, 4]
    assert asyncio.get_running_loop().time() - began_s > 0.04


async def test_a_group_is_bounded_and_the_rest_follows_at_once() -> None:
    groups: Groups[str] = Groups(every_s=3600, max_bytes=100)
    for entry, size in (("a", 60), ("b", 40), ("c", 1), ("large", 1000), ("d", 1)):
        groups.add(entry, size=size)
    async with asyncio.timeout(5):
        assert await groups.next() == ["a", "b"]
        assert await groups.next() == ["c"]
        assert await groups.next() == ["large"]
        assert await groups.next() == ["d"]
