"""The mesh, as OpenAI's package is pointed at it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with OpenAI(base_url=URL, api_key=KEY) as opened:
        yield opened


@pytest.fixture
async def async_client() -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=URL, api_key=KEY) as opened:
        yield opened
