"""Uploads at once: so many, and of one tenant a part of them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from headrace.errors import ControlUnavailable
from headrace_control.api.files.upload_slots import UploadSlots


def test_one_tenant_has_a_quarter_of_the_slots() -> None:
    slots = UploadSlots(8)
    with slots.taken("acme"), slots.taken("acme"):
        with (
            pytest.raises(ControlUnavailable, match="tenant acme uploads 2 files already"),
            slots.taken("acme"),
        ):
            pass
        with slots.taken("other"):
            pass
    with slots.taken("acme"):
        pass


def test_all_tenants_together_have_no_more_than_there_are() -> None:
    slots = UploadSlots(2)
    with ExitStack() as held:
        held.enter_context(slots.taken("a"))
        held.enter_context(slots.taken("b"))
        with pytest.raises(ControlUnavailable, match="this process uploads 2") as refused:
            held.enter_context(slots.taken("c"))
        assert refused.value.retry_after_s
    with slots.taken("c"):
        pass
