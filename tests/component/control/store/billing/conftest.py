"""A tenant with two models that have prices."""

from __future__ import annotations

import pytest

from headrace_control.base.records import Price, Tenant
from headrace_control.store import Store
from helpers.control_store import ROOT, TestClock
from helpers.statements import Recorder, go_to


@pytest.fixture
async def acme(store: Store, clock: TestClock) -> None:
    """A tenant since August, and the prices of two models."""
    go_to(clock, "2026-08-01")
    await store.tenants.create(Tenant("acme"), by=ROOT)
    await store.prices.create(Price("valley", "USD", None, 150_000, 75_000, 600_000), by=ROOT)
    await store.prices.create(Price("ridge", "USD", None, 7, 3, 11), by=ROOT)


@pytest.fixture
def record(store: Store) -> Recorder:
    return Recorder(store)
