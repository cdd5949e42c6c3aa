"""Pure room: names of models, and what stands for them where few characters are allowed.

A model may have any name that clients send: `Qwen/Qwen3-0.6B`, `gpt-3.5-turbo`, `llama3:8b`,
`模型`. Subjects and consumers of the broker, keys, leases and Kubernetes objects allow few
characters, so they are named by the model's *lane id*, a digest of its primary name; processes and
files by a *label*, which can be read:

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
"""60 bits: among a thousand models two are alike with a chance of one in a million million."""

SAFE_NAME = re.compile(r"[a-z0-9-]{1,63}")
"""Names that are their own label."""
LANE_ID = re.compile(r"[a-z2-7]{12}")
_LABEL_CHARACTERS = 40


def lane_id(model: str) -> str:
    """What names the model's lanes: 12 of a-z and 2-7, equal for equal names."""
    # Why surrogates pass: JSON may have half of a pair, and such a name is just unknown.
    digest = sha256(model.encode("utf-8", "surrogatepass")).digest()
    return b32encode(digest).decode().lower()[:LANE_ID_CHARACTERS]


def label(model: str) -> str:
    """What of the name can be part of a file's or process's name: [a-z0-9-]{1,63}.

    Where that is not all of it, the lane id tells models apart whose names read alike.
    """
    if SAFE_NAME.fullmatch(model):
        return model
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower())[:_LABEL_CHARACTERS].strip("-")
    return f"{readable}-{lane_id(model)}" if readable else lane_id(model)


def parse_names(names: str) -> tuple[str, ...]:
    """Names with commas between; a repeated one counts once."""
    return tuple(dict.fromkeys(filter(None, (name.strip(" ") for name in names.split(",")))))


def invalid_reason(name: str) -> str | None:
    """Why no model can have this name; None where one can."""
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
