"""When a study shows that a network tells the classes apart, and what is said when it does not."""

import math

import pytest

from thyro_core.evaluation.evidence import class_evidence, evidence_notes


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.51, 0.9, "apart"), (0.5, 0.9, "none"), (0.25, 0.85, "none"), (0.1, 0.5, "none"),
        (0.1, 0.49, "reversed"), (math.nan, math.nan, "undefined"), (None, None, "undefined"),
        (0.9, math.nan, "undefined"),
    ],
)  # fmt: skip
def test_the_interval_decides(low, high, expected) -> None:
    assert class_evidence(low, high) == expected


def test_each_network_without_evidence_has_its_sentence() -> None:
    notes = evidence_notes(
        {"resnet18": "apart", "alexnet": "none", "vgg16": "undefined", "inception_v3": "reversed"}
    )
    start = "no evidence that {} tells malignant from benign nodules: "
    assert [note.split(": ", 1)[0] + ": " for note in notes] == [
        start.format(name) for name in ("AlexNet", "VGG16", "Inception v3")
    ]
    assert "holds 0.5" in notes[0]
