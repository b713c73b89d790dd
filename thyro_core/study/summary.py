"""A finished study in one table: each architecture's mean metrics beside the paper's."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

import pyarrow as pa
import pyarrow.compute as pc

from thyro_core import NOTICE
from thyro_core.config import Architecture, StudyConfig
from thyro_core.evaluation.evidence import class_evidence, evidence_notes
from thyro_core.evaluation.metrics import METRICS, PAPER, PAPER_METRICS
from thyro_core.evaluation.tables import image_level
from thyro_core.study.plan import StudyPlan

MetricSummaries = Mapping[Architecture, Mapping[str, Mapping[str, float | None]]]

_METRIC_FIELDS = ("value", "ci_low", "ci_high")
PAPER_ROW = "paper, resnet18"


def metric_summaries(metrics: pa.Table, config: StudyConfig) -> MetricSummaries:
    """Mean, SD and interval over splits, by image: architecture -> metric -> figure -> value.

    Args:
        metrics: the study's `metrics` table.
        config: gives the order of the architectures.
    """
    images = image_level(metrics)
    over_splits = images.filter(pc.is_null(images["split"]))
    rows = {(row["architecture"], row["metric"]): row for row in over_splits.to_pylist()}
    names = ("value", "sd", "ci_low", "ci_high")
    return {
        architecture: {
            metric: {name: rows[architecture, metric][name] for name in names} for metric in METRICS
        }
        for architecture in config.architectures
    }


def summary_rows(summaries: MetricSummaries) -> list[list[str]]:
    """Header and rows of the table, as text: mean and 95 % interval of the paper's five metrics."""
    header = ["architecture", *PAPER_METRICS]
    rows = [
        [architecture, *(_format_metric(values[metric]) for metric in PAPER_METRICS)]
        for architecture, values in summaries.items()
    ]
    return [header, *rows, [PAPER_ROW, *(f"{PAPER[metric]:.3f}" for metric in PAPER_METRICS)]]


def _format_metric(figures: Mapping[str, float | None]) -> str:
    mean, low, high = (_or_nan(figures[name]) for name in _METRIC_FIELDS)
    if isnan(mean):
        return "undefined"
    if isnan(low) or isnan(high):
        return f"{mean:.3f}"
    # The t interval knows no bounds; every metric lives between 0 and 1.
    return f"{mean:.3f} ({max(low, 0.0):.2f}-{min(high, 1.0):.2f})"


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


def markdown_summary(plan: StudyPlan, summaries: MetricSummaries, notes: Sequence[str]) -> str:
    """The study's result as a Markdown page."""
    header, *rows = summary_rows(summaries)
    kind = "Null study, labels permuted:" if plan.config.permute_labels else "Study"
    lines = [
        f"# {kind} {plan.study_id}",
        "",
        f"**{NOTICE}**",
        "",
        f"Mean over {plan.config.splits} splits ({plan.config.scheme}), 95 % interval in brackets.",
        "",
        *(f"{note[0].upper()}{note[1:]}.\n" for note in chance_notes(summaries)),
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "Starting weights: "
        + "; ".join(f"{name}: {start.display_origin}" for name, start in plan.weights.items())
        + ".",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def chance_notes(summaries: MetricSummaries) -> tuple[str, ...]:
    """One sentence for each network that is not shown to tell the classes apart."""
    return evidence_notes(
        {
            name: class_evidence(values["auc"]["ci_low"], values["auc"]["ci_high"])
            for name, values in summaries.items()
        }
    )


def undefined_notes(metrics: pa.Table) -> tuple[str, ...]:
    """One sentence for each metric, by image, that some splits leave undefined.

    Args:
        metrics: a study's `metrics` table.
    """
    images = image_level(metrics)
    frame = images.filter(pc.is_valid(images["split"])).to_pandas()
    frame = frame[frame["metric"].isin(METRICS)]
    frame["undefined"] = frame["value"].isna()
    counts = frame.groupby(["architecture", "metric"], sort=False)["undefined"].agg(["sum", "size"])
    return tuple(
        f"{metric} of {architecture} is undefined in {row['sum']} of {row['size']} splits "
        "(one kind of call only); its mean is over the others"
        for (architecture, metric), row in counts.iterrows()
        if row["sum"]
    )


def state_counts(images: pa.Table) -> dict[str, int]:
    """How many files ended in each state: included by label, then excluded by reason.

    Args:
        images: an `images` table.
    """
    names = {0: "benign", 1: "malignant", None: "unlabelled"}
    rows = images.select(["label", "included", "reason"]).to_pylist()
    counts = dict.fromkeys((f"included, {name}" for name in names.values()), 0)
    for row in rows:
        if row["included"]:
            counts[f"included, {names[row['label']]}"] += 1
    for reason in sorted(row["reason"] for row in rows if not row["included"]):
        counts[f"excluded, {reason}"] = counts.get(f"excluded, {reason}", 0) + 1
    return counts
