"""A study's result in one page."""

from dataclasses import replace
from math import nan

import pyarrow as pa
import pytest

from tests.support.metric_levels import with_patient_level
from tests.support.places import GOLDEN
from thyro_core import NOTICE
from thyro_core.config import StudyConfig
from thyro_core.evaluation.metrics import METRICS, PAPER_METRICS
from thyro_core.study.plan import StudyPlan
from thyro_core.study.summary import (
    markdown_summary,
    metric_summaries,
    summary_rows,
    undefined_notes,
)
from thyro_core.tables import schemas
from thyro_core.training.pretrained import StartingWeights

CONFIG = StudyConfig(architectures=("vgg16", "resnet18"), splits=5)
PLAN = StudyPlan(
    "s0123456789abcdef",
    CONFIG,
    "m0123456789abcdef",
    "fp32",
    {
        "vgg16": StartingWeights("vgg16", "torchvision: IMAGENET1K_V1", "a" * 64, "weights/v"),
        "resnet18": StartingWeights("resnet18", "none", warning="resnet18 starts at random"),
    },
    (),
)


def row(architecture: str, metric: str, value: float, **more: object) -> dict[str, object]:
    found: dict[str, object] = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    found |= {"study_id": "s0123456789abcdef", "architecture": architecture, "metric": metric}
    return found | {"value": value} | more


def metrics() -> pa.Table:
    """Over splits 0.9 + 0, 0.01 ... for VGG16, 0.8 + ... for ResNet18; a split at either end."""
    rows = [row("vgg16", "auc", 0.1, split=0, ci_low=0.0, ci_high=0.2)]
    for architecture, start in (("resnet18", 0.8), ("vgg16", 0.9)):
        for i, metric in enumerate(METRICS):
            value = start + i / 100
            interval = {"sd": 0.02, "ci_low": value - 0.05, "ci_high": value + 0.0494}
            rows.append(row(architecture, metric, value, **interval))
        rows.append(row(architecture, "pooled_precision", 0.5))
    rows.append(row("vgg16", "auc", 0.2, split=1, ci_low=0.0, ci_high=0.2))
    return with_patient_level(schemas.rows_to_table("metrics", rows))


def test_figures_are_those_over_splits_in_the_configs_order() -> None:
    found = metric_summaries(metrics(), CONFIG)
    assert list(found) == ["vgg16", "resnet18"]
    assert list(found["vgg16"]) == list(METRICS)
    assert found["vgg16"]["auc"] == pytest.approx(
        {"value": 0.9, "sd": 0.02, "ci_low": 0.85, "ci_high": 0.9494}
    )
    assert found["resnet18"]["precision"]["value"] == pytest.approx(0.83)


def test_a_table_without_an_architecture_is_no_summary() -> None:
    with pytest.raises(KeyError, match="alexnet"):
        metric_summaries(metrics(), StudyConfig(architectures=("alexnet",)))


def test_the_page_is_what_it_was() -> None:
    page = markdown_summary(
        PLAN, metric_summaries(metrics(), CONFIG), ["First note.", "Second note."]
    )
    assert page == GOLDEN.joinpath("summary.md").read_text()


def test_the_page_begins_with_the_notice() -> None:
    page = markdown_summary(PLAN, metric_summaries(metrics(), CONFIG), [])
    assert page.splitlines()[:3] == ["# Study s0123456789abcdef", "", f"**{NOTICE}**"]
    assert "not a medical device" in NOTICE


def test_the_scheme_and_the_number_of_splits_are_the_studys() -> None:
    plan = replace(PLAN, config=CONFIG.model_copy(update={"scheme": "kfold", "splits": 7}))
    assert "Mean over 7 splits (kfold)" in markdown_summary(
        plan, metric_summaries(metrics(), CONFIG), []
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "cell"),
    [
        (0.98765, 0.9, 1.0, "0.988 (0.90-1.00)"),
        (0.5, None, None, "0.500"),
        (0.5, nan, 0.6, "0.500"),
        (0.5, 0.4, None, "0.500"),
        (nan, nan, nan, "undefined"),
        (None, None, None, "undefined"),
        (nan, 0.1, 0.2, "undefined"),
        (0.0, 0.0, 0.0, "0.000 (0.00-0.00)"),
        # Student's interval may leave [0, 1], where no metric lives.
        (0.99, 0.97, 1.01, "0.990 (0.97-1.00)"),
        (0.01, -0.01, 0.03, "0.010 (0.00-0.03)"),
    ],
)
def test_a_cell_never_invents_a_figure(
    value: float | None, low: float | None, high: float | None, cell: str
) -> None:
    figure = {"value": value, "sd": None, "ci_low": low, "ci_high": high}
    rows = summary_rows({"vgg16": dict.fromkeys(PAPER_METRICS, figure)})
    assert rows[1] == ["vgg16", *[cell] * 5]


def test_the_papers_figures_stand_last() -> None:
    rows = summary_rows(metric_summaries(metrics(), CONFIG))
    assert rows[0] == ["architecture", "auc", "accuracy", "recall", "precision", "f1"]
    assert [cells[0] for cells in rows[1:]] == ["vgg16", "resnet18", "paper, resnet18"]
    assert rows[-1][1:] == ["0.997", "0.984", "0.978", "0.939", "0.957"]


def test_a_metric_that_some_splits_leave_undefined_is_told_once() -> None:
    rows = [
        row("vgg16", metric, nan if (metric, split) in undefined else 0.5, split=split)
        for undefined in [{("precision", 0), ("precision", 2), ("npv", 1)}]
        for split in range(3)
        for metric in (*METRICS, "n_called")
    ]
    rows.append(row("vgg16", "f1", nan))  # over splits: not a split's
    rows.append(row("vgg16", "pooled_precision", nan, split=0))  # not one of the ten metrics
    rows += [row("resnet18", metric, 0.5, split=0) for metric in METRICS]
    notes = undefined_notes(with_patient_level(schemas.rows_to_table("metrics", rows)))
    assert len(notes) == 2
    assert notes[0].startswith("precision of vgg16 is undefined in 2 of 3 splits")
    assert notes[1].startswith("npv of vgg16 is undefined in 1 of 3 splits")
    assert undefined_notes(metrics()) == ()
