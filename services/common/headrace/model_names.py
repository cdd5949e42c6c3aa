"""Names of models, and what stands for them where few characters are allowed. Pure.

A model may have any name that clients send: `Qwen/Qwen3-0.6B`, `gpt-3.5-turbo`, `llama3:8b`,
`模型`. Subjects and consumers of the broker, keys, leases and Kubernetes objects allow few
characters, so they use the model's *lane id*, a digest of its primary name. Processes and files use
a readable *label*:

    >>> lane_id("Qwen/Qwen3-0.6B"), label("Qwen/Qwen3-0.6B")
    ('7nupljwrh5e7', 'qwen-qwen3-0-6b-7nupljwrh5e7')
    >>> lane_id("valley"), label("valley")
    ('mj75huc2jgqy', 'valley')
    >>> lane_id("模型"), label("模型")
    ('zghbddqkipyh', 'zghbddqkipyh')
"""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import sha256

MAX_CHARACTERS = 256
LANE_ID_CHARACTERS = 12
"""60 bits: of a thousand models two collide with a probability of one in a million million."""

SAFE_NAME = re.compile(r"[a-z0-9-]{1,63}")
"""Names that are their own labels."""
LANE_ID = re.compile(r"[a-z2-7]{12}")
_LABEL_CHARACTERS = 40


def lane_id(model: str) -> str:
    """Return the id of the model's lanes: 12 characters of a-z and 2-7, equal for equal names."""
    # Why surrogates pass: JSON may contain half of a pair, and such a name is only unknown.
    digest = sha256(model.encode("utf-8", "surrogatepass")).digest()
    return b32encode(digest).decode().lower()[:LANE_ID_CHARACTERS]


def label(model: str) -> str:
    """Return a part of a file's or process's name: [a-z0-9-]{1,63}.

    A name that does not fit is shortened and followed by the lane id, so that labels differ.
    """
    if SAFE_NAME.fullmatch(model):
        return model
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower())[:_LABEL_CHARACTERS].strip("-")
    return f"{readable}-{lane_id(model)}" if readable else lane_id(model)


def name_of_source(source: str) -> str:
    """Return the name of a model that is given none: the last part of its source, in lower case.

    Empty if the source has no letter and no digit.
    """
    last = source.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:63]


def parse_names(names: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, without repeats."""
    return tuple(dict.fromkeys(filter(None, (name.strip(" ") for name in names.split(",")))))


def invalid_reason(name: str) -> str | None:
    """Return why a model cannot have this name; None if it can."""
    if not name:
        return "it is empty"
    if len(name) > MAX_CHARACTERS:
        return f"it has {len(name)} characters, and {MAX_CHARACTERS} is the most"
    if not name.isprintable():
        stray = next(each for each in name if not each.isprintable())
        return f"it has a character that cannot be printed, U+{ord(stray):04X}"
    if name != name.strip():
        return "it begins or ends with a space"
    if name in (".", ".."):
        return "in a URL's path it means a folder"
    return None
