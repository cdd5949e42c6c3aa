"""`headrace.client.sampling`, made of the message that it fills and of the table of parameters.

PYTHONPATH=tests python tests/helpers/client_sampling.py services/common/headrace/client/sampling.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor

from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import SamplingParameters

_TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "int",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_STRING: "str",
}


def module() -> str:
    """Return the module's text."""
    lines = [
        '"""Keyword arguments of `headrace.client`; made by `make proto`, not by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import TypedDict",
        "",
        "",
        "class Sampling(TypedDict, total=False):",
        '    """Fields of `headrace.v1.SamplingParameters`; absent: the model\'s default."""',
        "",
    ]
    for field in SamplingParameters.DESCRIPTOR.fields:
        if (kind := _kind(field)) is None:
            continue
        lines.append(f"    {field.name}: {kind}")
        if field.name in PARAMETERS and not PARAMETERS[field.name].whole:
            lines.append(f'    """In {PARAMETERS[field.name].range}."""')
    return "\n".join(lines) + "\n"


def _kind(field: FieldDescriptor) -> str | None:
    """Return the type of a keyword argument; None for messages, which have no short form."""
    if field.message_type is not None:
        is_map = field.message_type.GetOptions().map_entry
        return "dict[int, float]" if is_map else None
    kind = _TYPES[field.type]
    if field.name == "stop":
        return "str | list[str]"  # as in OpenAI's API
    return f"list[{kind}]" if field.is_repeated else f"{kind} | None"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(module())
