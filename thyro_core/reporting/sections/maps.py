"""The report on Grad-CAM maps: features of their regions, and whether to trust them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from scipy.stats import t as student

from thyro_core.config import CLASS_NAMES, Architecture, StudyConfig
from thyro_core.evaluation.bounded import LEVEL
from thyro_core.evaluation.evidence import Evidence
from thyro_core.explain.regions import SHARES
from thyro_core.explain.statistics import SIGNIFICANT, shape_finding
from thyro_core.reporting.cells import Cell, definition
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.tables.cam_columns import FEATURES


@dataclass(frozen=True)
class FeatureTests:
    """Benign against malignant regions."""

    findings: Mapping[str, str]
    """Architecture -> what differs by class and given the score; only of networks that are shown
    to tell the classes apart."""
    tests: Mapping[str, list[TableRow]]
    """Architecture -> rows of `cam_tests` at the declared share, in the order of `FEATURES`."""
    shares: tuple[float, ...]
    sensitivity: Mapping[str, list[tuple[Cell, Cell, Cell]]]
    """Architecture -> at each share, shape features that differ by class, given the score, and
    those that were tested; only of networks with a finding."""
    family_size: int = len(FEATURES)
    """Features that the P values of a network and share are adjusted over."""


def feature_tests(
    tables: Tables, config: StudyConfig, evidence: Mapping[Architecture, Evidence]
) -> FeatureTests | None:
    """The rows of `cam_tests`; None where it has none.

    Args:
        tables: of the study.
        config: its config.
        evidence: whether each network is shown to tell the classes apart.
    """
    identity = ("architecture", "threshold", "feature")
    rows = tables.rows("cam_tests", identity, threshold=config.cam_share)
    order = list(FEATURES)
    tests: dict[Architecture, list[TableRow]] = {
        name: sorted(
            (row for row in rows if row["architecture"] == name),
            key=lambda row: order.index(row["feature"]),
        )
        for name in config.architectures
    }
    tests = {name: of for name, of in tests.items() if of}
    if not tests:
        return None
    with_finding = [name for name in tests if evidence[name] == "apart"]
    return FeatureTests(
        findings={
            name: shape_finding([row.values for row in tests[name]], config.cam_share)
            for name in with_finding
        },
        tests={str(name): of for name, of in tests.items()},
        shares=SHARES,
        sensitivity={
            name: [_hits(tables, name, share) for share in SHARES] for name in with_finding
        },
    )


def _hits(tables: Tables, architecture: str, share: float) -> tuple[Cell, Cell, Cell]:
    source = tables.source("cam_tests", architecture=architecture, threshold=share, family="shape")
    conditional = "isfinite(p_conditional) AND p_conditional_adjusted"
    figures = tables.figures(
        source,
        {
            "hits": (f"count(*) FILTER (isfinite(p) AND p_adjusted < {SIGNIFICANT})", "count"),
            "given": (f"count(*) FILTER ({conditional} < {SIGNIFICANT})", "count"),
            "tested": ("count(*) FILTER (isfinite(p))", "count"),
        },
    )
    return figures["hits"], figures["given"], figures["tested"]


def empty_maps(tables: Tables, config: StudyConfig) -> dict[str, dict[str, dict[str, Cell]]]:
    """Maps without evidence for malignant, by architecture and class; none where `cam_trust` is.

    Counts of maps and of empty ones, their share, images, and images with empty maps only.
    """
    if not tables.has("cam_trust"):
        return {}
    return {
        architecture: {
            name: _empty_counts(tables, architecture, label)
            for label, name in enumerate(CLASS_NAMES)
        }
        for architecture in config.architectures
    }


def _empty_counts(tables: Tables, architecture: str, label: int) -> dict[str, Cell]:
    source = tables.source("cam_trust", architecture=architecture, label=label)
    by_image = f"(SELECT bool_and(is_empty) AS e FROM {source} GROUP BY image_id)"
    maps = {
        "maps": ("count(*)", "count"),
        "empty": ("count(*) FILTER (is_empty)", "count"),
        "share": ("avg(is_empty::INT)", "percent"),
    }
    images = {"images": ("count(*)", "count"), "never": ("count(*) FILTER (e)", "count")}
    return tables.figures(source, maps) | tables.figures(by_image, images)


def families(tables: Tables, config: StudyConfig) -> list[TableRow]:
    """Rows of `cam_families` at the declared share, by architecture and family."""
    identity = ("architecture", "threshold", "family")
    rows = tables.rows("cam_families", identity, threshold=config.cam_share)
    kinds = list(dict.fromkeys(FEATURES.values()))
    return sorted(
        rows,
        key=lambda row: (
            config.architectures.index(row["architecture"]),
            kinds.index(row["family"]),
        ),
    )


@dataclass(frozen=True)
class TrustQuestion:
    """A check of the maps: which columns of `cam_trust` answer it."""

    title: str
    question: str
    column: str
    chance: str | float | None
    """The column of its chance level, or the level itself; None: it has none."""
    lacking: str
    """Why there may be nothing to say."""


_NO_NODULES = "Not computed: no outlines of nodules came with the images."
_NO_MARKS = "Not computed: no masks of burned-in marks came with the images."
_NOT_SAMPLED = "Not computed: no image was sampled for it."

QUESTIONS: tuple[TrustQuestion, ...] = (
    TrustQuestion(
        "Energy inside the nodule",
        "Which share of the map lies within the outlined nodule? By chance: its share of the area.",
        "nodule_energy", "nodule_area", _NO_NODULES,
    ),
    TrustQuestion(
        "Pointing game",
        "How often does the map's peak point into the nodule? By chance: its share of the area.",
        "nodule_hit", "nodule_area", _NO_NODULES,
    ),
    TrustQuestion(
        "Overlap with the nodule (IoU)",
        "How well does the region cover the nodule, and nothing else?",
        "nodule_iou", "nodule_iou_chance", _NO_NODULES,
    ),
    TrustQuestion(
        "Energy at the image's border",
        "How much of the map rests on the frame of the image? More than chance is a shortcut.",
        "border_energy", "border_area", "Not computed.",
    ),
    TrustQuestion(
        "Energy on burned-in marks",
        "How much rests on callipers and text, which no tissue shows? More than chance is a "
        "shortcut.",
        "mark_energy", "mark_area", _NO_MARKS,
    ),
    TrustQuestion(
        "Weight randomisation",
        "Does the map change when the last block is drawn anew? Rank correlation near zero: it "
        "follows what was learned; near one: it shows edges.",
        "randomised_correlation", 0.0, _NOT_SAMPLED,
    ),
    TrustQuestion(
        "Deletion",
        "Does the probability of malignant fall when the map's hottest pixels go first? Lower than "
        "in a random order is good.",
        "deletion", "deletion_random", _NOT_SAMPLED,
    ),
    TrustQuestion(
        "Insertion",
        "Does it rise when they come back first? Higher than in a random order is good.",
        "insertion", "insertion_random", _NOT_SAMPLED,
    ),
    TrustQuestion(
        "Empty maps",
        "How often does the network show no evidence at all for malignant?",
        "is_empty", None, "Not computed.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class TrustAnswer:
    """A check with its figures; none where nothing could be computed."""

    title: str
    question: str
    figures: Mapping[str, Cell] | None
    """value, low, high, n, and where there is a chance level chance, lead, lead_low, lead_high."""
    why: str


def trust(tables: Tables, config: StudyConfig) -> dict[str, list[TrustAnswer]]:
    """Architecture -> its checks; empty where `cam_trust` is."""
    if not tables.has("cam_trust"):
        return {}
    return {
        name: [_answer(tables, name, question) for question in QUESTIONS]
        for name in config.architectures
    }


def _answer(tables: Tables, architecture: str, question: TrustQuestion) -> TrustAnswer:
    images = _by_image(tables, architecture, question)
    n = int(tables.figure("count(*)", images, "count").value or 0)
    figures = tables.figures(images, _expressions(question, n)) if n else None
    if figures and question.chance == 0.0:
        figures |= {"chance": definition(0.0)}
    return TrustAnswer(question.title, question.question, figures, question.lacking)


def _by_image(tables: Tables, architecture: str, question: TrustQuestion) -> str:
    """One row an image, averaged over its splits: v, and c where there is a chance level."""
    source = tables.source("cam_trust", architecture=architecture)
    columns, conditions = (
        [f"avg({question.column}::DOUBLE) AS v"],
        [f"isfinite({question.column}::DOUBLE)"],
    )
    if isinstance(question.chance, str):
        columns.append(f"avg({question.chance}) AS c")
        conditions.append(f"isfinite({question.chance})")
    where = " AND ".join([source, *conditions])
    return f"(SELECT {', '.join(columns)} FROM {where} GROUP BY image_id)"


def _expressions(question: TrustQuestion, n: int) -> dict[str, tuple[str, str]]:
    expressions = {"n": ("count(*)", "count"), **_interval("v", n, ("value", "low", "high"))}
    if isinstance(question.chance, str):
        names = ("lead", "lead_low", "lead_high")
        expressions |= {"chance": ("avg(c)", "three"), **_interval("v - c", n, names)}
    return expressions


def _interval(expression: str, n: int, names: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """Mean and the ends of its t interval; a single image has none."""
    mean = f"avg({expression})"
    half = "NULL"
    if n > 1:
        factor = student.ppf((1 + LEVEL) / 2, n - 1) / sqrt(n)
        half = f"{factor:.10g} * stddev_samp({expression})"
    sql = (mean, f"{mean} - {half}", f"{mean} + {half}")
    return {name: (each, "three") for name, each in zip(names, sql, strict=True)}
