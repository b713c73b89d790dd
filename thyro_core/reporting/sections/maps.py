"""The report on Grad-CAM maps: features of their regions, and whether to trust them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from scipy.stats import t as student

from thyro_core.config import StudyConfig
from thyro_core.evaluation.uncertainty import LEVEL
from thyro_core.explain.regions import SHARES
from thyro_core.explain.statistics import SIGNIFICANT, shape_claim
from thyro_core.reporting.cells import Traced, defined
from thyro_core.reporting.queries import Row, Tables
from thyro_core.tables.cam_columns import FEATURES


@dataclass(frozen=True)
class Features:
    """Benign against malignant regions."""

    claims: Mapping[str, str]
    """Architecture -> one sentence on the paper's claim."""
    tests: Mapping[str, list[Row]]
    """Architecture -> rows of `cam_tests` at the declared share, in the order of `FEATURES`."""
    shares: tuple[float, ...]
    sensitivity: Mapping[str, list[tuple[Traced, Traced]]]
    """Architecture -> at each share, shape features that differ and those that were tested."""


def features(tables: Tables, config: StudyConfig) -> Features | None:
    """What `cam_tests` says, or None where it says nothing."""
    identity = ("architecture", "threshold", "feature")
    rows = tables.rows("cam_tests", identity, threshold=config.cam_share)
    order = list(FEATURES)
    tests: dict[str, list[Row]] = {
        name: sorted(
            (row for row in rows if row["architecture"] == name),
            key=lambda row: order.index(row["feature"]),
        )
        for name in config.architectures
    }
    there = {name: found for name, found in tests.items() if found}
    if not there:
        return None
    return Features(
        claims={
            name: shape_claim([row.values for row in found], config.cam_share)
            for name, found in there.items()
        },
        tests=there,
        shares=SHARES,
        sensitivity={name: [_hits(tables, name, share) for share in SHARES] for name in there},
    )


def _hits(tables: Tables, architecture: str, share: float) -> tuple[Traced, Traced]:
    source = tables.source("cam_tests", architecture=architecture, threshold=share, family="shape")
    found = tables.figures(
        source,
        {
            "hits": (f"count(*) FILTER (isfinite(p) AND p_adjusted < {SIGNIFICANT})", "count"),
            "tested": ("count(*) FILTER (isfinite(p))", "count"),
        },
    )
    return found["hits"], found["tested"]


def families(tables: Tables, config: StudyConfig) -> list[Row]:
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
class Question:
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

QUESTIONS: tuple[Question, ...] = (
    Question(
        "Energy inside the nodule",
        "Which share of the map lies within the outlined nodule? By chance: its share of the area.",
        "nodule_energy", "nodule_area", _NO_NODULES,
    ),
    Question(
        "Pointing game",
        "How often does the map's peak point into the nodule? By chance: its share of the area.",
        "nodule_hit", "nodule_area", _NO_NODULES,
    ),
    Question(
        "Overlap with the nodule (IoU)",
        "How well does the region cover the nodule, and nothing else?",
        "nodule_iou", "nodule_iou_chance", _NO_NODULES,
    ),
    Question(
        "Energy at the image's border",
        "How much of the map rests on the frame of the image? More than chance is a shortcut.",
        "border_energy", "border_area", "Not computed.",
    ),
    Question(
        "Energy on burned-in marks",
        "How much rests on callipers and text, which no tissue shows? More than chance is a "
        "shortcut.",
        "mark_energy", "mark_area", _NO_MARKS,
    ),
    Question(
        "Weight randomisation",
        "Does the map change when the last block is drawn anew? Rank correlation near zero: it "
        "follows what was learned; near one: it shows edges.",
        "randomised_correlation", 0.0, _NOT_SAMPLED,
    ),
    Question(
        "Deletion",
        "Does the probability of malignant fall when the map's hottest pixels go first? Lower than "
        "in a random order is good.",
        "deletion", "deletion_random", _NOT_SAMPLED,
    ),
    Question(
        "Insertion",
        "Does it rise when they come back first? Higher than in a random order is good.",
        "insertion", "insertion_random", _NOT_SAMPLED,
    ),
    Question(
        "Empty maps",
        "How often does the network show no evidence at all for malignant?",
        "is_empty", None, "Not computed.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A check with its figures; none where nothing could be computed."""

    title: str
    question: str
    figures: Mapping[str, Traced] | None
    """value, low, high, n, and where there is a chance level chance, lead, lead_low, lead_high."""
    why: str


def trust(tables: Tables, config: StudyConfig) -> dict[str, list[Answer]]:
    """Architecture -> its checks; empty where `cam_trust` is."""
    if not tables.has("cam_trust"):
        return {}
    return {
        name: [_answer(tables, name, question) for question in QUESTIONS]
        for name in config.architectures
    }


def _answer(tables: Tables, architecture: str, asked: Question) -> Answer:
    images = _by_image(tables, architecture, asked)
    n = int(tables.figure("count(*)", images, "count").value or 0)
    figures = tables.figures(images, _expressions(asked, n)) if n else None
    if figures and asked.chance == 0.0:
        figures |= {"chance": defined(0.0)}
    return Answer(asked.title, asked.question, figures, asked.lacking)


def _by_image(tables: Tables, architecture: str, asked: Question) -> str:
    """One row an image, averaged over its splits: v, and c where there is a chance level."""
    source = tables.source("cam_trust", architecture=architecture)
    columns, defined_ = [f"avg({asked.column}::DOUBLE) AS v"], [f"isfinite({asked.column}::DOUBLE)"]
    if isinstance(asked.chance, str):
        columns.append(f"avg({asked.chance}) AS c")
        defined_.append(f"isfinite({asked.chance})")
    where = " AND ".join([source, *defined_])
    return f"(SELECT {', '.join(columns)} FROM {where} GROUP BY image_id)"


def _expressions(asked: Question, n: int) -> dict[str, tuple[str, str]]:
    found = {"n": ("count(*)", "count"), **_interval("v", n, ("value", "low", "high"))}
    if isinstance(asked.chance, str):
        names = ("lead", "lead_low", "lead_high")
        found |= {"chance": ("avg(c)", "three"), **_interval("v - c", n, names)}
    return found


def _interval(expression: str, n: int, names: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """Mean and the ends of its t interval; a single image has none."""
    mean = f"avg({expression})"
    half = "NULL"
    if n > 1:
        factor = student.ppf((1 + LEVEL) / 2, n - 1) / sqrt(n)
        half = f"{factor:.10g} * stddev_samp({expression})"
    sql = (mean, f"{mean} - {half}", f"{mean} + {half}")
    return {name: (each, "three") for name, each in zip(names, sql, strict=True)}
