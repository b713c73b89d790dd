"""The report on Grad-CAM maps: features of their regions, and whether to trust them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thyro_core.config import CLASS_NAMES, Architecture, StudyConfig
from thyro_core.evaluation.evidence import Evidence
from thyro_core.explain.regions import SHARES
from thyro_core.explain.statistics import SIGNIFICANT, shape_finding
from thyro_core.explain.trust import (
    TRUST_CHECKS,
    WITHOUT_TEST,
    deletion_failure,
    localisation_finding,
)
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.queries import TableRow, Tables
from thyro_core.tables.cam_columns import ANY_CASCADE, CASCADE, CASCADE_COLUMNS, FEATURES


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


# Of two independent answers with the same shares.
_CHANCE_AGREEMENT = (
    "avg((nodule > 1)::INT) * avg((region > 1)::INT) "
    "+ avg((nodule <= 1)::INT) * avg((region <= 1)::INT)"
)


def nodule_proportions(tables: Tables, config: StudyConfig) -> dict[str, dict[str, Cell]]:
    """Proportions of outlined nodules and of the first architecture's regions, by class.

    Each image once; medians over images, a region's own value being the mean over the splits that
    tested it. Empty where no image with an outline has a region.
    """
    if not tables.has("cam_trust"):
        return {}
    figures = {
        "n": ("count(*)", "count"),
        "nodule": ("median(nodule)", "two"),
        "tall": ("avg((nodule > 1)::INT)", "percent"),
        "any": ("avg((tallest > 1)::INT)", "percent"),
        "several": ("count(*) FILTER (tallest > nodule)", "count"),
        "region": ("median(region)", "two"),
        "tall_region": ("avg((region > 1)::INT)", "percent"),
        "agree": ("avg(((nodule > 1) = (region > 1))::INT)", "percent"),
        "chance": (_CHANCE_AGREEMENT, "percent"),
    }
    by_class = {}
    for label, name in enumerate(CLASS_NAMES):
        key = {"architecture": config.architectures[0], "label": label}
        trust = tables.source("cam_trust", **key)
        regions = tables.source("cam_features", threshold=config.cam_share, **key)
        source = (
            "(SELECT image_id, any_value(nodule_aspect) AS nodule, "
            "any_value(nodule_tallest) AS tallest, avg(aspect_ratio) AS region "
            f"FROM (SELECT split, image_id, nodule_aspect, nodule_tallest FROM {trust}) "
            f"JOIN (SELECT split, image_id, aspect_ratio FROM {regions} "
            "AND isfinite(aspect_ratio)) USING (split, image_id) "
            "WHERE isfinite(nodule_aspect) GROUP BY image_id)"
        )
        cells = tables.figures(source, figures)
        if cells["n"].value:
            by_class[name] = cells
    return by_class


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
    """A check of the maps as a reader asks it, and why there may be no answer."""

    title: str
    question: str
    lacking: str


_NO_NODULES = "Not computed: no outlines of nodules came with the images."
_NOT_SAMPLED = "Not computed: no image was sampled for it."

QUESTIONS: Mapping[str, TrustQuestion] = {
    "nodule_energy": TrustQuestion(
        "Energy inside the nodule",
        "Which share of the map lies within the outlined nodule?",
        _NO_NODULES,
    ),
    "nodule_hit": TrustQuestion(
        "Pointing game", "How often does the map's peak point into the nodule?", _NO_NODULES
    ),
    "nodule_iou": TrustQuestion(
        "Overlap with the nodule (IoU)",
        "How well does the region cover the nodule, and nothing else?",
        _NO_NODULES,
    ),
    "border_energy": TrustQuestion(
        "Energy at the image's border",
        "How much of the map rests on the frame of the image? It is the same in each image: its "
        "area is the only baseline, and no level of chance.",
        "Not computed: every map is empty.",
    ),
    "mark_energy": TrustQuestion(
        "Energy on burned-in marks",
        "How much rests on what looks like callipers or text (in some images bright tissue does "
        "too, and some marks are missed), in images with any? More "
        "than in both baselines of other images hints at a shortcut.",
        "Not computed: no marks were found, or every map is empty.",
    ),
    "deletion": TrustQuestion(
        "Deletion",
        "Does the probability of malignant fall when the map's hottest pixels go first? Lower than "
        "in a random order is good.",
        _NOT_SAMPLED,
    ),
    "insertion": TrustQuestion(
        "Insertion",
        "Does it rise when they come back first? Higher than in a random order is good.",
        _NOT_SAMPLED,
    ),
}
"""The checks that have a baseline, by their column of `cam_trust`."""

BASELINES: Mapping[str, str] = {
    "permuted": "other images' maps and masks",
    "mean_map": "the mean map of the others",
    "area": "share of the area",
    "random_order": "random order",
}
"""What each baseline is to a reader."""


@dataclass(frozen=True)
class TrustAnswer:
    """A check of one network against one baseline."""

    title: str
    question: str
    baseline: str
    row: TableRow | None
    """Its row of `cam_checks`; None: no image has it."""
    form: str
    """How its figures are shown: marks are so small that their energy is given in thousandths."""
    lacking: str
    is_tested: bool
    """Whether the baseline is a level of chance, so that the lead has a P."""


@dataclass(frozen=True)
class CascadeStage:
    """How alike maps stay when the network is drawn anew from its head down to a layer."""

    layer: str
    row: TableRow
    without: Cell
    """Images that were sampled, and have a map of one value in every split."""


@dataclass(frozen=True)
class NetworkTrust:
    """The checks of one network's maps."""

    answers: list[TrustAnswer]
    cascade: list[CascadeStage]
    """The stages; none where no image was sampled."""
    n_sampled: Cell
    """Images that were sampled."""
    finding: str
    """Whether the maps find the nodule; empty without masks, and for a network without evidence."""
    failure: str
    """Which of deletion and insertion fail; empty: none, or a network without evidence."""


def trust(
    tables: Tables, config: StudyConfig, evidence: Mapping[Architecture, Evidence]
) -> dict[str, NetworkTrust]:
    """Architecture -> its checks; empty where `cam_checks` is.

    Args:
        tables: of the study.
        config: its config.
        evidence: whether each network is shown to tell the classes apart.
    """
    rows = tables.rows("cam_checks", ("architecture", "measure", "baseline"))
    return {
        str(name): _network_trust(
            tables,
            name,
            [row for row in rows if row["architecture"] == name],
            has_finding=evidence[name] == "apart",
        )
        for name in config.architectures
        if rows
    }


def trust_answers(
    by_check: Mapping[tuple[str, str], TableRow], measures: Sequence[str]
) -> list[TrustAnswer]:
    """What each check came to, in the order of the measures; one without an answer has one entry.

    Args:
        by_check: (measure, baseline) -> a row with the columns of `cam_checks`.
        measures: keys of `QUESTIONS`.
    """
    answers = [
        TrustAnswer(
            QUESTIONS[check].title,
            QUESTIONS[check].question,
            BASELINES[baseline],
            row if (row := by_check.get((check, baseline))) and row["n"] else None,
            "permille" if check == "mark_energy" else "three",
            QUESTIONS[check].lacking,
            is_tested=baseline not in WITHOUT_TEST,
        )
        for check in measures
        for name, baseline, _ in TRUST_CHECKS
        if name == check
    ]
    # Without an answer one row says so, not one a baseline.
    return [
        answer
        for i, answer in enumerate(answers)
        if answer.row or not i or answers[i - 1].title != answer.title
    ]


_WITHOUT = (
    "count(DISTINCT image_id) FILTER ({0} IS NOT NULL) "
    "- count(DISTINCT image_id) FILTER (isfinite({0}))"
)


def _network_trust(
    tables: Tables, architecture: Architecture, rows: list[TableRow], *, has_finding: bool
) -> NetworkTrust:
    by_check = {(row["measure"], row["baseline"]): row for row in rows}
    source = tables.source("cam_trust", architecture=architecture)
    images = "count(DISTINCT image_id) FILTER ({0} IS NOT NULL)"
    values = [row.values for row in rows]
    return NetworkTrust(
        answers=trust_answers(by_check, tuple(QUESTIONS)),
        cascade=[
            CascadeStage(layer, row, tables.figure(_WITHOUT.format(column), source, "count"))
            for layer, column in zip(
                CASCADE.get(architecture, ANY_CASCADE), CASCADE_COLUMNS, strict=True
            )
            if (row := by_check.get((column, "none"))) and row["n"]
        ],
        n_sampled=tables.figure(images.format(CASCADE_COLUMNS[0]), source, "count"),
        finding=localisation_finding(values) if has_finding else "",
        failure=deletion_failure(values) if has_finding else "",
    )
