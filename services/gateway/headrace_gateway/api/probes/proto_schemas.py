"""Pure room: protobuf messages as JSON Schema, by the rules of proto3's JSON mapping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

Json = dict[str, Any]

_STRING_OR_NUMBER: Json = {"type": ["string", "integer"]}
"""64 bits: printed as a string, read as either."""
_SCALARS: dict[int, Json] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_SINT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "minimum": 0},
}
_WELL_KNOWN: dict[str, Json] = {
    "google.protobuf.Any": {"type": "object"},
    "google.protobuf.Duration": {"type": "string", "examples": ["1.5s"]},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["display_name,models"]},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
"""What has a form of its own in JSON."""


def reference(message: Descriptor) -> Json:
    """Return what stands for a message wherever one is expected."""
    known = _WELL_KNOWN.get(message.full_name)
    return {"$ref": f"#/components/schemas/{message.full_name}"} if known is None else known


def object_schema(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def schemas(messages: Iterable[Descriptor]) -> dict[str, Json]:
    """Return the schemas of these messages, and of all that they are made of, by full name."""
    found: dict[str, Json] = {}
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name in found or message.full_name in _WELL_KNOWN:
            continue
        fields = {field.name: field_schema(field) for field in message.fields}
        found[message.full_name] = object_schema(**fields)
        inner = (_value_of(field).message_type for field in message.fields)
        waiting += [each for each in inner if each is not None]
    return found


def field_schema(field: FieldDescriptor) -> Json:
    """Return the schema of one field."""
    value = _value_of(field)
    if value is not field:
        return {"type": "object", "additionalProperties": _single(value)}
    return {"type": "array", "items": _single(field)} if field.is_repeated else _single(field)


def _single(field: FieldDescriptor) -> Json:
    if field.message_type is not None:
        return reference(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return _SCALARS.get(field.type, _STRING_OR_NUMBER)


def _value_of(field: FieldDescriptor) -> FieldDescriptor:
    """Return the field of a map's values; any other field is its own."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return field
    return entry.fields_by_name["value"]
