"""The report on the images: who is in the study, who is not and why, and that no split leaks."""

from dataclasses import dataclass

from thyro_core.reporting.cells import Traced, paper
from thyro_core.reporting.queries import Tables, literal

PAPER_TABLE: dict[str, tuple[int, int, int]] = {
    "train": (291, 66, 357),
    "test": (124, 27, 151),
    "all": (415, 93, 508),
}
"""Table 1 of the paper: benign, malignant and all images by part."""

_CLASSES = {"benign": "label = 0", "malignant": "label = 1", "all": "true"}
_ROLES = {"train": "Training", "val": "Validation", "test": "Test"}
_LINKS = {
    "image_id": "the same file",
    "pixel_hash": "the same pixels",
    "patient_id": "the same patient",
    "group_id": "near-duplicates, or the same group",
}


@dataclass(frozen=True)
class Part:
    """A row of Table 1: images of each class in one part of the splits."""

    name: str
    counts: list[tuple[Traced, Traced]]
    """Benign, malignant, all: fewest and most over the splits."""
    published: list[Traced]
    """The paper's; empty where it has no such part."""


@dataclass(frozen=True)
class Check:
    """One thing that must not stand on both sides of a split."""

    what: str
    seen: Traced
    """How many there are among the study's images."""
    shared: Traced
    """How many stand on both sides of a split, over all splits."""


@dataclass(frozen=True)
class Cohort:
    """The images of the study."""

    figures: dict[str, Traced]
    reasons: list[tuple[str, Traced]]
    parts: list[Part]
    sizes: list[tuple[str, dict[str, Traced]]]
    has_patients: bool
    same_sizes: bool
    """Whether all splits have parts of the same sizes."""


def cohort(tables: Tables) -> Cohort:
    """Counts of what was found, what takes part and what was excluded, with Table 1."""
    images = tables.source("images")
    figures = tables.figures(
        images,
        {
            "found": ("count(*)", "count"),
            "included": ("count(*) FILTER (included)", "count"),
            "excluded": ("count(*) FILTER (NOT included)", "count"),
            "unlabelled": ("count(*) FILTER (included AND label IS NULL)", "count"),
            "patients": ("count(DISTINCT patient_id) FILTER (included)", "count"),
            "unknown": ("count(*) FILTER (included AND patient_id IS NULL)", "count"),
        },
    )
    parts = _parts(tables)
    return Cohort(
        figures=figures,
        reasons=_reasons(tables, images),
        parts=parts,
        sizes=_sizes(tables, images),
        has_patients=figures["patients"].value != 0,
        same_sizes=all(low.value == high.value for part in parts for low, high in part.counts),
    )


def _reasons(tables: Tables, images: str) -> list[tuple[str, Traced]]:
    asked = tables.ask(
        f"SELECT DISTINCT reason FROM {images} AND NOT included ORDER BY reason NULLS LAST"
    )
    names = [row["reason"] for row in asked if row["reason"] is not None]
    return [
        (name, tables.figure("count(*)", f"{images} AND reason = {literal(name)}", "count"))
        for name in names
    ]


def _parts(tables: Tables) -> list[Part]:
    splits = tables.source("splits")
    asked = tables.ask(f"SELECT DISTINCT role FROM {splits}")
    there = {row["role"] for row in asked}
    rows = [
        Part(title, _counts(tables, f"{splits} AND role = '{role}'"), _published(role))
        for role, title in _ROLES.items()
        if role in there
    ]
    return [*rows, Part("All", _counts(tables, splits), _published("all"))]


def _counts(tables: Tables, rows: str) -> list[tuple[Traced, Traced]]:
    """Fewest and most images of each class in any split."""
    found = []
    for test in _CLASSES.values():
        each = f"(SELECT count(*) FILTER ({test}) AS n FROM {rows} GROUP BY split)"
        ends = tables.figures(each, {"low": ("min(n)", "count"), "high": ("max(n)", "count")})
        found.append((ends["low"], ends["high"]))
    return found


def _published(role: str) -> list[Traced]:
    return [paper(number, "count") for number in PAPER_TABLE.get(role, ())]


def _sizes(tables: Tables, images: str) -> list[tuple[str, dict[str, Traced]]]:
    """Size, brightness and sharpness by class: what a network could take for the class."""
    expressions = {
        "width": ("median(width)", "count"),
        "height": ("median(height)", "count"),
        "mean": ("median(mean)", "one"),
        "sd": ("median(sd)", "one"),
        "sharpness": ("median(sharpness)", "three"),
        "overlay": ("avg(overlay_share)", "percent"),
    }
    return [
        (name, tables.figures(f"{images} AND included AND {_CLASSES[name]}", expressions))
        for name in ("benign", "malignant")
    ]


@dataclass(frozen=True)
class Leakage:
    """What was looked at for leakage, in figures."""

    checks: list[Check]
    figures: dict[str, Traced]
    clean: bool


def leakage(tables: Tables) -> Leakage:
    """For each kind of link between images, how often it crosses a split: the proof is zeros."""
    splits = f"splits JOIN images USING (image_id) WHERE splits.study_id = '{tables.study_id}'"
    splits += f" AND images.manifest_id = '{tables.manifest_id}'"
    checks = [Check(what, *_crossings(tables, splits, column)) for column, what in _LINKS.items()]
    return Leakage(checks, _groups(tables), all(check.shared.value == 0 for check in checks))


def _crossings(tables: Tables, splits: str, column: str) -> tuple[Traced, Traced]:
    name = f"images.{column}" if column != "image_id" else column
    seen = tables.figure(f"count(DISTINCT {name})", splits, "count")
    both = (
        f"(SELECT split, {name} AS link FROM {splits} AND {name} IS NOT NULL "
        "GROUP BY ALL HAVING count(DISTINCT role = 'test') = 2)"
    )
    return seen, tables.figure("count(*)", both, "count")


def _groups(tables: Tables) -> dict[str, Traced]:
    included = f"{tables.source('images')} AND included AND label IS NOT NULL"
    groups = (
        "(SELECT count(*) AS n, count(DISTINCT coalesce(patient_id, image_id)) AS units "
        f"FROM {included} GROUP BY group_id)"
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
