"""The report on figures: the ten metrics beside the paper's, confusion, comparisons, and doubts."""

from collections.abc import Mapping
from dataclasses import dataclass

from thyro_core.config import Architecture, StudyConfig
from thyro_core.evaluation.evidence import Evidence, class_evidence
from thyro_core.evaluation.metrics import METRICS, PAPER
from thyro_core.evaluation.plausibility import Suspicion, suspicions
from thyro_core.evaluation.tables import COUNTS, IMAGE_LEVEL, OPTIMISM, POOLED_PREFIX, TRAIN_AUC
from thyro_core.reporting.cells import Cell, paper
from thyro_core.reporting.queries import TableRow, Tables

Interval = tuple[Cell, Cell]


@dataclass(frozen=True)
class MeanCell:
    """A mean over splits, its spread and its 95 % interval."""

    value: Cell
    sd: Cell
    low: Cell
    high: Cell
    n: Cell
    """Splits that define it."""


@dataclass(frozen=True)
class Level:
    """The figures of one level: what counts as one."""

    smallest: Cell
    """Units in the smallest test part."""
    largest: Cell
    means: Mapping[str, Mapping[str, MeanCell]]
    """Architecture -> metric -> cell."""


@dataclass(frozen=True)
class Performance:
    """The metrics of a study."""

    means: Mapping[str, Mapping[str, MeanCell]]
    """Architecture -> metric -> cell."""
    paper_values: Mapping[str, Cell]
    """The paper's figures, of ResNet18."""
    splits: Mapping[str, list[TableRow]]
    """Architecture -> its AUC in each split, rows of `metrics`."""
    confusions: Mapping[str, Mapping[str, Cell]]
    """Architecture -> pooled counts, rates and sizes."""
    suspicions: list[Suspicion]
    evidence: Mapping[Architecture, Evidence]
    """Architecture -> whether its AUC shows that it tells the classes apart."""
    optimism: Mapping[str, Mapping[str, MeanCell]]
    """Architecture -> train_auc and optimism; none where the training parts were not scored."""
    levels: Mapping[str, Level]
    """image, patient, group or nodule -> its figures; only `image`: no unit has several images."""
    prevalence: Cell
    """Share of malignant images in the test parts of all splits."""
    one_class_calls: Mapping[str, Mapping[str, Cell]]
    """Class -> what calling every image so reaches, mean over splits: `accuracy`, and of malignant
    `f1`."""
    training_images: Mapping[int, Cell]
    """Split -> size of its training part, where splits are periods of time; empty elsewhere."""

    @property
    def better_calls(self) -> dict[str, dict[str, Cell]]:
        """Those of `one_class_calls` that exceed the first network's own figures."""
        own = next(iter(self.means.values()))
        better = {
            name: {
                metric: cell
                for metric, cell in figures.items()
                if isinstance(cell.value, float)
                and isinstance(mean := own[metric].value.value, float)
                and cell.value > mean
            }
            for name, figures in self.one_class_calls.items()
        }
        return {name: figures for name, figures in better.items() if figures}


def performance(tables: Tables, config: StudyConfig) -> Performance:
    """Everything the table `metrics` says, for the config's architectures in their order."""
    every = tables.rows("metrics", ("architecture", "level", "metric", "split"))
    by_level: dict[str, list[TableRow]] = {IMAGE_LEVEL: []}
    for row in every:
        by_level.setdefault(row["level"], []).append(row)
    rows = by_level[IMAGE_LEVEL]
    over = _over_splits(rows)
    levels = {name: _level(tables, config, name, of) for name, of in by_level.items()}
    means = levels[IMAGE_LEVEL].means
    aucs: dict[str, float] = {name: over[name, "auc"]["value"] for name in config.architectures}
    images = tables.figure("count(DISTINCT image_id)", tables.source("splits"), "count")
    periods = range(config.splits) if config.scheme == "temporal" else ()
    return Performance(
        means=means,
        paper_values={metric: paper(value) for metric, value in PAPER.items()},
        splits={name: _of_splits(rows, name) for name in config.architectures},
        confusions={name: _confusion(over, name) for name in config.architectures},
        suspicions=suspicions(aucs, int(images.value or 0)),
        evidence={
            name: class_evidence(over[name, "auc"]["ci_low"], over[name, "auc"]["ci_high"])
            for name in config.architectures
        },
        optimism={
            name: {
                metric: _mean_cell(over[name, metric], ends="three")
                for metric in (TRAIN_AUC, OPTIMISM)
            }
            for name in config.architectures
            if (name, OPTIMISM) in over
        },
        levels=levels,
        training_images={
            split: tables.figure(
                "count(*)", tables.source("splits", role="train", split=split), "count"
            )
            for split in periods
        },
        prevalence=tables.figure(
            "sum(label) / count(*)", tables.source("splits", role="test"), "percent"
        ),
        one_class_calls=_one_class_calls(tables),
    )


def _one_class_calls(tables: Tables) -> dict[str, Mapping[str, Cell]]:
    tests = tables.source("splits", role="test")
    shares = f"(SELECT avg(label) AS p FROM {tests} GROUP BY split)"
    figures = {
        "malignant": {"accuracy": ("avg(p)", "three"), "f1": ("avg(2 * p / (1 + p))", "three")},
        "benign": {"accuracy": ("avg(1 - p)", "three")},
    }
    return {name: tables.figures(shares, of) for name, of in figures.items()}


def _over_splits(rows: list[TableRow]) -> dict[tuple[str, str], TableRow]:
    return {(row["architecture"], row["metric"]): row for row in rows if row["split"] is None}


def _level(tables: Tables, config: StudyConfig, level: str, rows: list[TableRow]) -> Level:
    over = _over_splits(rows)
    key = {"architecture": config.architectures[0], "level": level, "metric": METRICS[0]}
    source = f"{tables.source('metrics', **key)} AND split IS NOT NULL"
    sizes = tables.figures(source, {"low": ("min(n)", "count"), "high": ("max(n)", "count")})
    return Level(
        smallest=sizes["low"],
        largest=sizes["high"],
        means={
            name: {metric: _mean_cell(over[name, metric]) for metric in METRICS}
            for name in config.architectures
        },
    )


def _mean_cell(row: TableRow, *, ends: str = "bounded") -> MeanCell:
    return MeanCell(
        value=row.cell("value", "three"),
        sd=row.cell("sd", "three"),
        low=row.cell("ci_low", ends),
        high=row.cell("ci_high", ends),
        n=row.cell("n", "count"),
    )


def _of_splits(rows: list[TableRow], architecture: str) -> list[TableRow]:
    return [
        row
        for row in rows
        if row["split"] is not None
        and (row["architecture"], row["metric"]) == (architecture, "auc")
    ]


def _confusion(over: Mapping[tuple[str, str], TableRow], architecture: str) -> dict[str, Cell]:
    pooled_rows = {
        name: over[architecture, POOLED_PREFIX + name]
        for name in (*COUNTS, "recall", "specificity")
    }
    cells = {
        name: row.cell("value", "count" if name in COUNTS else "three")
        for name, row in pooled_rows.items()
    }
    sizes = pooled_rows["true_positives"]
    return cells | {
        "n": sizes.cell("n", "count"),
        "n_positive": sizes.cell("n_positive", "count"),
    }


@dataclass(frozen=True)
class Comparisons:
    """The first architecture against each other one."""

    corrected_tests: Mapping[str, list[TableRow]]
    """Baseline -> rows of Nadeau and Bengio's test, in the order of `METRICS`."""
    delong: Mapping[str, Mapping[str, Cell]]
    """Baseline -> splits tested, splits with P < 0.05 before and after Holm's correction."""


def comparisons(tables: Tables, config: StudyConfig) -> Comparisons:
    """Everything the table `comparisons` says."""
    identity = ("baseline", "metric", "test", "split")
    rows = tables.rows("comparisons", identity, test="nadeau_bengio")
    baselines = [name for name in config.architectures[1:] if any(_against(rows, name))]
    return Comparisons(
        corrected_tests={
            name: sorted(_against(rows, name), key=lambda row: METRICS.index(row["metric"]))
            for name in baselines
        },
        delong={name: _delong(tables, name) for name in baselines},
    )


def _against(rows: list[TableRow], baseline: str) -> list[TableRow]:
    return [row for row in rows if row["baseline"] == baseline]


def _delong(tables: Tables, baseline: str) -> dict[str, Cell]:
    return tables.figures(
        tables.source("comparisons", baseline=baseline, test="delong"),
        {
            "splits": ("count(*)", "count"),
            "plain": ("count(*) FILTER (p < 0.05)", "count"),
            "holm": ("count(*) FILTER (p_adjusted < 0.05)", "count"),
        },
    )
