"""The mesh, as Anthropic's package is pointed at it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from anthropic import Anthropic, AsyncAnthropic

URL, KEY = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_API_KEY"]


@pytest.fixture
def client() -> Iterator[Anthropic]:
    with Anthropic(base_url=URL, api_key=KEY) as opened:
        yield opened


@pytest.fixture
async def async_client() -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=URL, api_key=KEY) as opened:
        yield opened
