"""Update masks: which fields of a resource a call changes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from headrace.errors import InvalidRequest

M = TypeVar("M", bound=Message)

EVERYTHING = "*"


def updated(before: M, given: M, mask: FieldMask, changeable: Collection[str]) -> M:
    """Return `before` with the fields of the mask as `given` has them.

    An empty mask means every changeable field that is set in `given`, "*" every changeable one. A
    field of the mask that is not set in `given` becomes empty.

    Raises:
        InvalidRequest: the mask has a path that is no field, or one that cannot be changed.
    """
    paths = list(mask.paths)
    if not paths:
        paths = [field.name for field, _ in given.ListFields() if field.name in changeable]
    elif paths == [EVERYTHING]:
        paths = sorted(changeable)
    for path in paths:
        if path.partition(".")[0] not in changeable or not _is_field(path, given):
            raise InvalidRequest(
                f"update_mask names {path[:100]!r}; it may name {', '.join(sorted(changeable))},"
                f" or be {EVERYTHING!r} for all of them",
                field="update_mask",
            )
    after = type(before)()
    after.CopyFrom(before)
    FieldMask(paths=paths).MergeMessage(
        given, after, replace_message_field=True, replace_repeated_field=True
    )
    return after


def _is_field(path: str, message: Message) -> bool:
    # Why the count of parts: the library takes an entry of a map for a field.
    is_shallow = path.count(".") <= 1 and not path.endswith(".")
    mask = FieldMask(paths=[path])
    return is_shallow and bool(mask.IsValidForDescriptor(message.DESCRIPTOR))  # type: ignore[arg-type]
