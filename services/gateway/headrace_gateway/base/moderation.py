"""Pure: OpenAI's categories of moderation, and what labels of models that classify mean in them."""

from __future__ import annotations

from collections.abc import Mapping

CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening"),
    *("illicit", "illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)
HARMLESS = ""
_LABELS = {
    **{name: name for name in CATEGORIES},
    # Jigsaw's, of the toxic-bert family.
    "toxic": "harassment",
    "toxicity": "harassment",
    "severe toxic": "harassment",
    "severe toxicity": "harassment",
    "insult": "harassment",
    "threat": "harassment/threatening",
    "obscene": "sexual",
    "sexual explicit": "sexual",
    "identity hate": "hate",
    "identity attack": "hate",
    # The short names of OpenAI's own data set of moderation.
    "h": "hate",
    "h2": "hate/threatening",
    "hr": "harassment",
    "sh": "self-harm",
    "s": "sexual",
    "s3": "sexual/minors",
    "v": "violence",
    "v2": "violence/graphic",
    "hate speech": "hate",
    "offensive": "harassment",
    "nsfw": "sexual",
    "spam": "illicit",
    **dict.fromkeys(
        ("ok", "safe", "neutral", "none", "normal", "non toxic", "not toxic", "nontoxic"), HARMLESS
    ),
    **dict.fromkeys(("not hate", "no hate", "not offensive", "not spam", "ham", "sfw"), HARMLESS),
}
"""Categories of labels in lower case; - and _ may stand for a space."""


def category_of(label: str, configured: Mapping[str, str]) -> str:
    """Return the category of a model's label; empty: it is harmless.

    Raises:
        KeyError: with the label, whose category is not known.
    """
    name = label.lower()
    for each in (label, name):
        if each in configured:
            return configured[each]
    for each in (name, name.replace("_", " ").replace("-", " ")):
        if each in _LABELS:
            return _LABELS[each]
    raise KeyError(label)


def read_labels(text: str) -> dict[str, str]:
    """Read the setting: `rude=harassment,fine=`.

    Raises:
        ValueError: an entry is none, or names no category.
    """
    found = {}
    for entry in filter(None, (each.strip() for each in text.split(","))):
        label, equals, category = (part.strip() for part in entry.partition("="))
        if not label or not equals or category not in (*CATEGORIES, HARMLESS):
            known = ", ".join(CATEGORIES)
            raise ValueError(f"{entry[:80]!r} should be a label, =, and one of {known} or nothing")
        found[label] = category
    return found


def check_labels(text: str) -> str:
    """Return the setting as it is.

    Raises:
        ValueError: as `read_labels`.
    """
    read_labels(text)
    return text
