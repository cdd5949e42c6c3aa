"""Which fields an update changes."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1.keys_pb2 import Key
from headrace.admin.v1.tenants_pb2 import Limits
from headrace.errors import InvalidRequest
from headrace_control.api.tenancy.key_messages import KEY_FIELDS
from headrace_control.api.tenancy.masks import updated

BEFORE = Key(
    name="tenants/acme/keys/k1",
    display_name="Old",
    models=["a", "b"],
    labels={"team": "search"},
    limits=Limits(requests_per_minute=60, tokens_per_day=9),
    expire_time=Timestamp(seconds=9),
    redacted="hr_k1_...xyz",
)


def after(given: Key, *paths: str) -> Key:
    return updated(BEFORE, given, FieldMask(paths=paths), KEY_FIELDS)


def changed(**fields: object) -> Key:
    key = Key()
    key.CopyFrom(BEFORE)
    for name in fields:
        key.ClearField(name)  # type: ignore[arg-type]
    key.MergeFrom(Key(**fields))  # type: ignore[arg-type]
    return key


def test_only_what_the_mask_names_is_changed_and_lists_are_replaced() -> None:
    given = Key(display_name="New", models=["c"], labels={"cost": "7"})
    assert after(given, "models") == changed(models=["c"])
    assert after(given, "labels") == changed(labels={"cost": "7"})
    assert after(given, "display_name", "models") == changed(display_name="New", models=["c"])


def test_a_named_field_that_is_not_set_becomes_empty() -> None:
    cleared = after(Key(), "models", "labels", "expire_time", "limits")
    assert (list(cleared.models), dict(cleared.labels)) == ([], {})
    assert not cleared.HasField("expire_time")
    assert not cleared.HasField("limits")


def test_a_part_of_a_message_is_changed_alone() -> None:
    given = Key(limits=Limits(requests_per_minute=1, tokens_per_day=1))
    limits = after(given, "limits.requests_per_minute").limits
    assert (limits.requests_per_minute, limits.tokens_per_day) == (1, 9)


def test_without_a_mask_what_is_set_is_changed_but_for_what_cannot_be() -> None:
    given = Key(name="tenants/acme/keys/k1", display_name="New", redacted="forged")
    assert after(given) == changed(display_name="New")
    assert after(Key()) == BEFORE


def test_a_star_replaces_everything_that_can_be_changed() -> None:
    assert after(Key(display_name="New"), "*") == Key(
        name=BEFORE.name, redacted=BEFORE.redacted, display_name="New"
    )


@pytest.mark.parametrize(
    "path",
    ["name", "redacted", "", "nothing", "labels.team", "limits.x", "limits.", "models.x", "Models"],
)
def test_a_path_that_cannot_be_changed_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        after(Key(), path)
    assert refused.value.field == "update_mask"
