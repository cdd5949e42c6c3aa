"""What labels of models mean in OpenAI's categories."""

from __future__ import annotations

from array import array

import pytest

from headrace_gateway.base.moderation import HARMLESS, category_of, read_labels
from headrace_gateway.request.vectors import bytes_of, probabilities


@pytest.mark.parametrize(
    ("label", "category"),
    [
        ("hate/threatening", "hate/threatening"),
        ("self-harm", "self-harm"),
        ("severe_toxic", "harassment"),
        ("identity-attack", "hate"),
        ("NEUTRAL", HARMLESS),
        ("not_hate", HARMLESS),
        ("V2", "violence/graphic"),
    ],
)
def test_labels_that_people_use_are_known(label: str, category: str) -> None:
    assert category_of(label, {}) == category


def test_the_setting_goes_before_what_is_known() -> None:
    configured = read_labels("toxic=hate, rude = harassment,fine=")
    assert [category_of(label, configured) for label in ("toxic", "Rude", "fine")] == [
        "hate",
        "harassment",
        HARMLESS,
    ]
    with pytest.raises(KeyError, match="LABEL_0"):
        category_of("LABEL_0", configured)


@pytest.mark.parametrize("text", ["rude", "=hate", "rude=impolite"])
def test_a_setting_that_names_no_category_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a label, =, and one of harassment"):
        read_labels(text)


def test_large_logits_have_probabilities() -> None:
    logits = bytes_of(array("f", [1000.0, -1000.0]))
    assert probabilities(logits, multi_label=False) == [1.0, 0.0]
    assert probabilities(logits, multi_label=True) == [1.0, 0.0]
