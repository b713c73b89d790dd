"""The report on the images: who is in the study, who is not and why, and that no split leaks."""

import json
from dataclasses import dataclass

import numpy as np

from thyro_core.evaluation.readers import separates_classes
from thyro_core.reporting.cells import Cell, paper
from thyro_core.reporting.queries import Tables, literal

PAPER_TABLE: dict[str, tuple[int, int, int]] = {
    "train": (291, 66, 357),
    "test": (124, 27, 151),
    "all": (415, 93, 508),
}
"""Table 1 of the paper: benign, malignant and all images by part."""

_CLASS_CONDITIONS = {"benign": "label = 0", "malignant": "label = 1", "all": "true"}
_PATIENT_CONDITIONS = {
    "found_patients": "true",
    "excluded_patients": "NOT included",
    "patients": "included",
    "unlabelled_patients": "included AND label IS NULL",
    "benign_patients": "included AND label = 0",
    "malignant_patients": "included AND label = 1",
}
_ROLE_TITLES = {"train": "Training", "val": "Validation", "test": "Test", "unused": "Not used"}
_MOST_TEXTS = 12  # of a column of categories; more tell images apart
_LINK_TITLES = {
    "image_id": "the same file",
    "pixel_hash": "the same pixels",
    "patient_id": "the same patient",
    "group_id": "near-duplicates, or the same group",
}


@dataclass(frozen=True)
class CohortPart:
    """A row of Table 1: images of each class in one part of the splits."""

    name: str
    counts: list[tuple[Cell, Cell]]
    """Benign, malignant, all: fewest and most over the splits."""
    paper_counts: list[Cell]
    """The paper's; empty where it has no such part."""
    patients: list[tuple[Cell, Cell]]
    """Likewise, known patients of these images."""


@dataclass(frozen=True)
class LeakageCheck:
    """One thing that must not stand on both sides of a split."""

    what: str
    total: Cell
    """How many there are among the study's images."""
    several: Cell
    """How many of them have several images, which alone could stand on both sides."""
    n_shared: Cell
    """How many stand on both sides of a split, over all splits."""


@dataclass(frozen=True)
class Cohort:
    """The images of the study."""

    figures: dict[str, Cell]
    reasons: list[tuple[str, Cell]]
    parts: list[CohortPart]
    coverage: dict[str, Cell]
    """Distinct test sets, and how often images are tested."""
    sizes: list[tuple[str, dict[str, Cell]]]
    has_patients: bool
    label_columns: tuple[str, ...]
    """Kept columns whose every text stands beside one class alone: labels may follow from them."""
    tested_units: dict[str, Cell]
    """Patients, or groups, with `benign` and with `malignant` images in some test part."""
    same_sizes: bool
    """Whether all splits have parts of the same sizes."""
    permutation: dict[str, Cell]
    """Of the images in the splits: classes by the image set's labels (`true_*`) and by the splits'
    own (`permuted_*`), and how many differ; empty but in a null study."""


def cohort(tables: Tables, *, is_null: bool = False) -> Cohort:
    """Counts of what was found, what takes part and what was excluded, with Table 1.

    Args:
        tables: of the study.
        is_null: whether the labels of the splits are permuted.
    """
    images = tables.source("images")
    splits = tables.source("splits")
    outside = (
        f"{images} AND included AND label IS NOT NULL "
        f"AND image_id NOT IN (SELECT image_id FROM {splits})"
    )
    figures = tables.figures(
        images,
        {
            "found": ("count(*)", "count"),
            "included": ("count(*) FILTER (included)", "count"),
            "excluded": ("count(*) FILTER (NOT included)", "count"),
            "unlabelled": ("count(*) FILTER (included AND label IS NULL)", "count"),
            "benign": ("count(*) FILTER (included AND label = 0)", "count"),
            "malignant": ("count(*) FILTER (included AND label = 1)", "count"),
            **{
                name: (f"count(DISTINCT patient_id) FILTER ({condition})", "count")
                for name, condition in _PATIENT_CONDITIONS.items()
            },
            "unknown": ("count(*) FILTER (included AND patient_id IS NULL)", "count"),
            "aspect": ("median(width / height) FILTER (included)", "two"),
        },
    ) | tables.figures(
        outside,
        {
            "outside": ("count(*)", "count"),
            "outside_patients": ("count(DISTINCT patient_id)", "count"),
        },
    )
    parts, unit = _cohort_parts(tables), "coalesce(patient_id, group_id)"
    return Cohort(
        figures=figures,
        reasons=_reasons(tables, images),
        parts=parts,
        coverage=_coverage(tables),
        sizes=_class_properties(tables, images),
        has_patients=figures["patients"].value != 0,
        label_columns=() if is_null else _label_columns(tables),
        tested_units=tables.figures(
            tables.source("splits", role="test"),
            {
                name: (f"count(DISTINCT {unit}) FILTER ({_CLASS_CONDITIONS[name]})", "count")
                for name in ("benign", "malignant")
            },
        ),
        same_sizes=all(low.value == high.value for part in parts for low, high in part.counts),
        permutation=_permutation(tables) if is_null else {},
    )


def _label_columns(tables: Tables) -> tuple[str, ...]:
    rows = tables.query(
        f"SELECT label, attributes FROM {tables.source('images')} "
        "AND included AND label IS NOT NULL AND attributes IS NOT NULL"
    )
    texts: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    for row in rows:
        for name, text in json.loads(row["attributes"]).items():
            texts.setdefault(name, []).append(text)
            labels.setdefault(name, []).append(row["label"])
    return tuple(
        name
        for name in sorted(texts)
        if 1 < len(set(texts[name])) <= _MOST_TEXTS
        and len(set(labels[name])) == 2
        and separates_classes(texts[name], np.array(labels[name]))
    )


def _permutation(tables: Tables) -> dict[str, Cell]:
    """Both labels of the images in the splits: a permutation of groups keeps no count of images."""
    splits, images = tables.source("splits"), tables.source("images")
    pairs = (
        "(SELECT DISTINCT image_id, source.label AS truth, own.label AS own "
        f"FROM (SELECT image_id, label FROM {splits}) AS own "
        f"JOIN (SELECT image_id, label FROM {images}) AS source USING (image_id))"
    )
    return tables.figures(
        pairs,
        {
            "true_benign": ("count(*) FILTER (truth = 0)", "count"),
            "true_malignant": ("count(*) FILTER (truth = 1)", "count"),
            "permuted_benign": ("count(*) FILTER (own = 0)", "count"),
            "permuted_malignant": ("count(*) FILTER (own = 1)", "count"),
            "changed": ("count(*) FILTER (own != truth)", "count"),
        },
    )


def _reasons(tables: Tables, images: str) -> list[tuple[str, Cell]]:
    rows = tables.query(
        f"SELECT DISTINCT reason FROM {images} AND NOT included ORDER BY reason NULLS LAST"
    )
    names = [row["reason"] for row in rows if row["reason"] is not None]
    return [
        (name, tables.figure("count(*)", f"{images} AND reason = {literal(name)}", "count"))
        for name in names
    ]


def _cohort_parts(tables: Tables) -> list[CohortPart]:
    splits = tables.source("splits")
    roles = {row["role"] for row in tables.query(f"SELECT DISTINCT role FROM {splits}")}
    rows = [
        _cohort_part(tables, title, f"{splits} AND role = '{role}'", role)
        for role, title in _ROLE_TITLES.items()
        if role in roles
    ]
    return [*rows, _cohort_part(tables, "All", splits, "all")]


def _cohort_part(tables: Tables, title: str, rows: str, role: str) -> CohortPart:
    images, patients = (_part_counts(tables, rows, of) for of in ("*", "DISTINCT patient_id"))
    return CohortPart(title, images, _paper_counts(role), patients)


def _part_counts(tables: Tables, rows: str, of: str) -> list[tuple[Cell, Cell]]:
    """Fewest and most of each class in any split."""
    counts = []
    for test in _CLASS_CONDITIONS.values():
        each = f"(SELECT count({of}) FILTER ({test}) AS n FROM {rows} GROUP BY split)"
        ends = tables.figures(each, {"low": ("min(n)", "count"), "high": ("max(n)", "count")})
        counts.append((ends["low"], ends["high"]))
    return counts


def _coverage(tables: Tables) -> dict[str, Cell]:
    splits = tables.source("splits")
    images = f"(SELECT DISTINCT image_id, patient_id, label, times_tested FROM {splits})"
    return tables.figures(splits, {"test_sets": ("count(DISTINCT test_set)", "count")}) | (
        tables.figures(
            images,
            {
                "images": ("count(*)", "count"),
                "patients": ("count(DISTINCT patient_id)", "count"),
                "fewest": ("min(times_tested)", "count"),
                "most": ("max(times_tested)", "count"),
                "never": ("count(*) FILTER (times_tested = 0)", "count"),
                "never_patients": (
                    "count(DISTINCT patient_id) FILTER (times_tested = 0)",
                    "count",
                ),
                "never_malignant": ("count(*) FILTER (times_tested = 0 AND label = 1)", "count"),
            },
        )
    )


def _paper_counts(role: str) -> list[Cell]:
    return [paper(number, "count") for number in PAPER_TABLE.get(role, ())]


def _class_properties(tables: Tables, images: str) -> list[tuple[str, dict[str, Cell]]]:
    """Size, brightness and sharpness by class: what a network could take for the class."""
    expressions = {
        "width": ("median(width)", "count"),
        "height": ("median(height)", "count"),
        "mean": ("median(mean)", "one"),
        "sd": ("median(sd)", "one"),
        "sharpness": ("median(sharpness)", "three"),
        "overlay": ("avg(overlay_share)", "percent"),
        "windows": ("avg((coalesce(views, 1) > 1)::INT)", "percent"),
    }
    return [
        (name, tables.figures(f"{images} AND included AND {_CLASS_CONDITIONS[name]}", expressions))
        for name in ("benign", "malignant")
    ]


@dataclass(frozen=True)
class Leakage:
    """The checks against leakage, in figures."""

    checks: list[LeakageCheck]
    figures: dict[str, Cell]
    clean: bool


def leakage(tables: Tables) -> Leakage:
    """For each kind of link between images, how often it crosses a split: the proof is zeros."""
    splits = f"splits JOIN images USING (image_id) WHERE splits.study_id = '{tables.study_id}'"
    splits += f" AND images.manifest_id = '{tables.manifest_id}'"
    checks = [
        LeakageCheck(what, *_crossings(tables, splits, column))
        for column, what in _LINK_TITLES.items()
    ]
    return Leakage(
        checks, _group_figures(tables), all(check.n_shared.value == 0 for check in checks)
    )


def _crossings(tables: Tables, splits: str, column: str) -> tuple[Cell, Cell, Cell]:
    name = f"images.{column}" if column != "image_id" else column
    total = tables.figure(f"count(DISTINCT {name})", splits, "count")
    both = (
        f"(SELECT split, {name} AS link FROM {splits} AND {name} IS NOT NULL "
        "GROUP BY ALL HAVING count(DISTINCT role = 'test') = 2)"
    )
    several = (
        f"(SELECT {name} AS link FROM {splits} AND {name} IS NOT NULL "
        "GROUP BY ALL HAVING count(DISTINCT image_id) > 1)"
    )
    return (
        total,
        tables.figure("count(*)", several, "count"),
        tables.figure("count(*)", both, "count"),
    )


def _group_figures(tables: Tables) -> dict[str, Cell]:
    included_images = f"{tables.source('images')} AND included AND label IS NOT NULL"
    groups = (
        "(SELECT count(*) AS n, count(DISTINCT coalesce(patient_id, image_id)) AS units "
        f"FROM {included_images} GROUP BY group_id)"
    )
    return tables.figures(
        groups,
        {
            "groups": ("count(*)", "count"),
            "joined": ("count(*) FILTER (units > 1)", "count"),
            "largest": ("coalesce(max(n), 0)", "count"),
        },
    ) | {
        "splits": tables.figure("count(DISTINCT split)", tables.source("splits"), "count"),
    }
