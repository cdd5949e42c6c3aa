"""Calls of the services as methods: on behalf of an operator, unless a test says whose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.auth.caller import Caller
from headrace_control.api.callers import calling


@pytest.fixture(autouse=True)
def caller() -> Iterator[None]:
    with calling(Caller(anonymous=True)):
        yield
