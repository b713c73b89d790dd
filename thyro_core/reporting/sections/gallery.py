"""The report's Grad-CAM gallery: which images are shown is decided by a rule, not by eye."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image

from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.datasets.path_names import holds_date, holds_medical_id, holds_name
from thyro_core.errors import InputError
from thyro_core.explain.maps import stored_maps
from thyro_core.explain.overlay import overlay_map
from thyro_core.imaging.burned_text import without_text
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.queries import Tables
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table
from thyro_core.types import Grey

EACH = 2
"""Most certain, and least certain, images of each kind of call."""

WORST = 12
"""Wrong calls that are listed, the most certain first."""

LARGEST_SIDE = 256
"""Images are shown at the network's input size, but not larger than this [pixels]."""

_KINDS = {
    (1, True): "Malignant, called malignant",
    (1, False): "Malignant, missed",
    (0, False): "Benign, called benign",
    (0, True): "Benign, called malignant",
}
_OVER_SPLITS = {
    "probability": ("avg(prob_malignant)", "three"),
    "splits": ("count(*)", "count"),
}
_WEBP_QUALITY = 88
_SHORT_ID = 12
_IMAGE_FACTS = ["image_id", "uri", "group_id", "text_boxes", "width", "height", "view_box"]


@dataclass(frozen=True)
class GalleryCase:
    """One image: as it is, and with its map."""

    name: str
    """The first digits of its image_id; a file's name could hold a patient's."""
    rank: str
    image: str
    overlay: str
    side: int
    is_empty: bool
    probability: Cell
    """Mean over the splits that tested it."""
    splits: Cell
    split: Cell
    """The split of the map."""
    split_probability: Cell
    """The probability in that split."""


@dataclass(frozen=True)
class GalleryGroup:
    """One kind of call: how many there are, and those that are shown."""

    title: str
    count: Cell
    cases: list[GalleryCase]


@dataclass(frozen=True)
class WrongCall:
    """An image that was called the other class, by its mean probability."""

    name: str
    """The first digits of its image_id."""
    file: str
    """Its file's name; empty: names are not kept, or this one may tell of a person."""
    label: int
    probability: Cell
    splits: Cell


@dataclass(frozen=True)
class Gallery:
    """All that is shown, or why nothing is."""

    groups: list[GalleryGroup] = field(default_factory=list)
    each: int = EACH
    why: str = ""
    wrong: list[WrongCall] = field(default_factory=list)
    """At most `WORST`, the most certain first."""


def gallery(tables: Tables, store: Store, plan: StudyPlan, scratch: Path) -> Gallery:
    """The most and the least certain images of each kind of call by the first architecture.

    An image's probability is its mean over the splits that tested it; certainty is its distance
    from the threshold, and of equal ones the image with the smallest id goes first. Of images that
    belong together only the first is shown. The map is of the class that was called, from the first
    split that called it so; one always does.
    """
    side = plan.config.side(plan.config.architectures[0])
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    index = pack_index(images)
    facts = {row["image_id"]: row for row in images.select(_IMAGE_FACTS).to_pylist()}
    calls = _calls_by_image(tables, plan)
    wrong = _wrong_calls(tables, plan, calls, facts)
    try:
        pack = open_pack(store, plan.manifest_id, side, scratch, len(index))
    except InputError:
        why = "the packed images are not in the store any more; ingest the image set again."
        return Gallery(why=why, wrong=wrong)
    rows = [row | {"group": facts[row["image_id"]]["group_id"]} for row in calls]
    rows_to_show = {kind: _select_rows(rows, *kind, plan.config.threshold) for kind in _KINDS}
    maps = _Maps(store, plan)
    groups = [
        GalleryGroup(
            title,
            _call_count(tables, plan, *kind),
            [
                _case(
                    tables,
                    plan,
                    row,
                    rank,
                    _Pixels(
                        without_text(
                            pack[index[row["image_id"]]],
                            facts[row["image_id"]],
                            pad=plan.config.is_padded,
                        ),
                        maps.of(row),
                    ),
                )
                for row, rank in rows_to_show[kind]
            ],
        )
        for kind, title in _KINDS.items()
    ]
    return Gallery(groups, wrong=wrong)


def _calls_by_image(tables: Tables, plan: StudyPlan) -> list[dict[str, Any]]:
    """One row an image: image_id, label, p (mean probability), called, and the first such split."""
    source = tables.source("predictions", architecture=plan.config.architectures[0])
    rows = tables.query(
        "SELECT image_id, any_value(label) AS label, avg(prob_malignant) AS p, "
        f"{_first_split(plan, as_malignant=True)} AS positive, "
        f"{_first_split(plan, as_malignant=False)} AS negative, "
        f"avg(prob_malignant) >= {plan.config.threshold!r} AS called "
        f"FROM {source} GROUP BY image_id ORDER BY image_id"
    )
    return [row | {"split": row["positive" if row["called"] else "negative"]} for row in rows]


def _wrong_calls(
    tables: Tables,
    plan: StudyPlan,
    calls: list[dict[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
) -> list[WrongCall]:
    wrong = [row for row in calls if row["called"] != bool(row["label"])]
    wrong.sort(key=lambda row: (-abs(row["p"] - row["label"]), row["image_id"]))
    first = plan.config.architectures[0]
    return [
        WrongCall(
            row["image_id"][:_SHORT_ID],
            file_to_show(facts[row["image_id"]]["uri"]),
            row["label"],
            **tables.figures(
                tables.source("predictions", architecture=first, image_id=row["image_id"]),
                _OVER_SPLITS,
            ),
        )
        for row in wrong[:WORST]
    ]


def file_to_show(uri: str | None) -> str:
    """The last part of a path, empty where it may tell of a person or no path was kept.

    Args:
        uri: of the table `images`; null or a pseudonym where names are not kept.
    """
    if uri is None or "/" not in uri:
        return ""
    name = uri.rsplit("/", 1)[1]
    tells = holds_name(name) or holds_date(name) or holds_medical_id(name)
    return "" if tells else name


def _first_split(plan: StudyPlan, *, as_malignant: bool) -> str:
    """The first split that called an image malignant, or benign, in SQL."""
    test = f"prob_malignant {'>=' if as_malignant else '<'} {plan.config.threshold!r}"
    return f"min(split) FILTER ({test})"


def _select_rows(
    rows: list[dict[str, Any]],
    label: int,
    as_malignant: bool,
    threshold: float,
) -> list[tuple[dict[str, Any], str]]:
    """The rows to show with their rank, the most certain first, at most one of a group."""
    kind = [row for row in rows if (row["label"], row["called"]) == (label, as_malignant)]
    kind.sort(key=lambda row: (-abs(row["p"] - threshold), row["image_id"]))
    most = _one_of_a_group(kind)[:EACH]
    groups = {row["group"] for row in most}
    least = _one_of_a_group([row for row in kind[::-1] if row["group"] not in groups])[:EACH]
    return [
        *((row, "most certain" if i == 0 else "second most certain") for i, row in enumerate(most)),
        *(
            (row, "least certain" if i == 0 else "second least certain")
            for i, row in enumerate(least)
        ),
    ]


def _one_of_a_group(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of each group."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["group"], row)
    return list(first.values())


def _call_count(tables: Tables, plan: StudyPlan, label: int, as_malignant: bool) -> Cell:
    source = tables.source("predictions", architecture=plan.config.architectures[0], label=label)
    test = f"avg(prob_malignant) {'>=' if as_malignant else '<'} {plan.config.threshold!r}"
    each = f"(SELECT image_id FROM {source} GROUP BY image_id HAVING {test})"
    return tables.figure("count(*)", each, "count")


class _Maps:
    """Maps of the class that was called, each part of `cams` read once."""

    def __init__(self, store: Store, plan: StudyPlan) -> None:
        self._store, self._plan = store, plan
        self._parts: dict[int, Any] = {}

    def of(self, row: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """float32 (h, w), raw; empty where there is none."""
        split = row["split"]
        if split not in self._parts:
            self._parts[split] = read_table(
                self._store,
                "cams",
                study_id=self._plan.study_id,
                split=split,
                architecture=self._plan.config.architectures[0],
            )
        is_map = (pc.field("image_id") == row["image_id"]) & (
            pc.field("target_class") == int(row["called"])
        )
        maps = stored_maps(self._parts[split].filter(is_map))
        return np.asarray(maps[0])


@dataclass(frozen=True)
class _Pixels:
    grey: Grey
    cam: npt.NDArray[np.float32]


def _case(
    tables: Tables, plan: StudyPlan, row: Mapping[str, Any], rank: str, pixels: _Pixels
) -> GalleryCase:
    grey = _fitting(np.asarray(pixels.grey))
    peak = float(pixels.cam.max())
    image_id, split = row["image_id"], row["split"]
    first = plan.config.architectures[0]
    own = tables.source("predictions", architecture=first, image_id=image_id)
    own_split = tables.source("predictions", split=split, architecture=first, image_id=image_id)
    return GalleryCase(
        name=image_id[:_SHORT_ID],
        rank=rank,
        image=_data_uri(grey),
        overlay=_data_uri(overlay_map(grey, pixels.cam)),
        side=grey.shape[0],
        is_empty=peak <= 0,
        **tables.figures(
            own,
            _OVER_SPLITS
            | {
                "split": (_first_split(plan, as_malignant=bool(row["called"])), "count"),
            },
        ),
        split_probability=tables.figure("prob_malignant", own_split, "three"),
    )


def _fitting(grey: Grey) -> Grey:
    if grey.shape[0] <= LARGEST_SIDE:
        return grey
    size = (LARGEST_SIDE, LARGEST_SIDE)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))


def _data_uri(pixels: Grey) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=_WEBP_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
