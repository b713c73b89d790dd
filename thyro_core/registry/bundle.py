"""Promoted models in the store, read without torch: the bundle, its card, its reference set."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from thyro_core.config import Architecture, ViewConfig, view_of
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import (
    Calibration,
    LogisticCalibration,
    TemperatureCalibration,
)
from thyro_core.evaluation.conformal import BandCuts
from thyro_core.registry.card import Card, CardError, CardVersion1, parse_card
from thyro_core.store.keys import bundle_prefix, card_key
from thyro_core.store.store import Store
from thyro_core.tables.io import from_parquet
from thyro_core.urls import redact

FIGURES_OF_MEMBERS = (
    "an earlier version of the program promoted it: its threshold and figures are single "
    "members', not the ensemble's, and its probabilities are scaled by a temperature alone; start "
    "its study again with this version and give the result to `thyro promote`"
)
"""What is to be known of a model with a card of version 1."""

REFERENCE_FILE = "reference.parquet"
"""Name of the reference set within a bundle."""

_COLUMNS = (
    ("image_id", pa.string(), "SHA-256 of the file's bytes, hexadecimal."),
    ("group_id", pa.string(), "Images of one patient, or near-duplicates; null: unknown."),
    ("label", pa.int8(), "0 benign, 1 malignant."),
    (
        "prob_malignant",
        pa.float64(),
        "Calibrated probability by the members whose split tested it; NaN: there is none.",
    ),
    ("sd", pa.float64(), "Standard deviation over these members, calibrated; NaN: fewer than two."),
    ("mean", pa.float64(), "Mean grey level, 0 to 255."),
    ("grey_sd", pa.float64(), "Standard deviation of the grey level, 0 to 255."),
    ("sharpness", pa.float64(), "Focus measure, see `thyro_core.imaging.quality`."),
    ("overlay_share", pa.float64(), "Share of coloured pixels of the tissue, 0 to 1."),
    ("held_out", pa.bool_(), "Whether the first member was not trained on the image."),
    ("embedding", pa.list_(pa.float32()), "Mean over cells of the first member's last map."),
)

REFERENCE = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _COLUMNS],
    metadata={"row": "image that took part in the study", "schema_version": "2"},
)
"""The training set as the model saw it."""


@dataclass(frozen=True)
class Bundle:
    """A promoted model: an ensemble of one architecture's split models."""

    model_id: str
    architecture: Architecture
    side: int
    """Side of the square input [pixels]."""
    calibration: Calibration
    """From the members' log odds to the calibrated probability."""
    threshold: float
    """Calibrated probability of malignant from which an image counts as positive."""
    members: tuple[str, ...]
    """Keys of the members' weights, in the order of the splits."""
    card: Mapping[str, Any]
    """The whole card, as plain JSON values."""

    @property
    def view(self) -> ViewConfig:
        """What its networks learned to see of a picture, the only thing they may be shown."""
        return view_of(self.card["study_config"])

    @property
    def is_of_version_1(self) -> bool:
        """Whether threshold and figures are single members', as cards of version 1 have them."""
        return bool(self.card["card_version"] == 1)

    @property
    def cuts(self) -> BandCuts | None:
        """The cuts of conformal bands, as calibrated probabilities; None: bands by threshold."""
        bands = self.card.get("bands")
        return None if bands is None else BandCuts(bands["routine"]["cut"], bands["refer"]["cut"])

    @property
    def auc(self) -> float | None:
        """Of the ensemble, out of fold; of version 1 the members' mean over splits."""
        figure = self.card["metrics"] if self.is_of_version_1 else self.card["ensemble"]
        value: float | None = figure["auc"]["value"]
        return value


def load_bundle(store: Store, model_id: str) -> Bundle:
    """A promoted model of this store; its weights are read, and checked, when they are needed.

    Raises:
        InputError: there is no such model, or its card is not whole.
    """
    key = card_key(model_id)
    if not store.exists(key):
        names = ", ".join(model_ids(store)) or "none"
        msg = (
            f"{redact(store.url)}: expected a promoted model {model_id}, found {names}; check the "
            "id and --store, or promote a study first"
        )
        raise InputError(msg)
    try:
        card = parse_card(store.read(key), model_id)
    except CardError as error:
        msg = (
            f"{key}: expected the card of {model_id} as it was written, found {error}; delete "
            "this file and promote the study again"
        )
        raise InputError(msg) from error
    return Bundle(
        model_id=model_id,
        architecture=card.architecture,
        side=card.side,
        calibration=_calibration(card),
        threshold=card.operating_point.threshold,
        members=tuple(f"{bundle_prefix(model_id)}/{name}" for name in card.members),
        card=card.model_dump(mode="json"),
    )


def require_whole_pictures(bundle: Bundle) -> None:
    """Refuse a model that learned to see nodules alone, where nobody says where they are.

    Raises:
        InputError: says so, and what to do instead.
    """
    if bundle.view.region == "nodule":
        msg = (
            f"model {bundle.model_id}: expected one that takes whole pictures, found one trained "
            "on crops of nodules (region: nodule), and new files have neither masks nor boxes; "
            "give it images with masks, or with columns x, y, w and h, by `thyro evaluate`, or "
            "name a model of a study with region: whole"
        )
        raise InputError(msg)


def _calibration(card: Card | CardVersion1) -> Calibration:
    if isinstance(card, CardVersion1):
        return TemperatureCalibration(card.calibration.temperature)
    return LogisticCalibration(card.calibration.slope, card.calibration.intercept)


def model_ids(store: Store) -> list[str]:
    """Ids of all promoted models of a store, sorted; half-made ones have no card yet."""
    folder = store.path("registry/models")
    if not store.fs.exists(folder):
        return []
    names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in store.fs.ls(folder, detail=False)}
    return sorted(name for name in names if store.exists(card_key(name)))


def reference(store: Store, model_id: str) -> pa.Table:
    """A model's training set as the model saw it, one row an image, by image_id.

    Returns:
        Schema `REFERENCE`.

    Raises:
        InputError: there is no such model, or the file is gone or not the one on its card.
    """
    bundle = load_bundle(store, model_id)
    table = from_parquet(read_bundle_file(store, bundle, REFERENCE_FILE))
    if "group_id" not in table.column_names:  # a bundle of before the column
        table = table.add_column(1, "group_id", pa.nulls(table.num_rows, pa.string()))
    return table.cast(REFERENCE)


def read_bundle_file(store: Store, bundle: Bundle, name: str) -> bytes:
    """A file of a bundle, checked against the card.

    Args:
        store: holds the model.
        bundle: the model.
        name: of the file within the bundle.

    Raises:
        InputError: the file is gone, or is not the one on the card.
    """
    key = f"{bundle_prefix(bundle.model_id)}/{name}"
    sha256 = bundle.card["files"].get(name)
    data = store.read(key) if store.exists(key) else None
    actual = None if data is None else hashlib.sha256(data).hexdigest()
    if data is None or actual != sha256:
        raise damaged_file(key, sha256, actual)
    return data


def damaged_file(place: str, sha256: str | None, actual: str | None) -> InputError:
    """The error for a bundle's file that is gone (`actual` None) or has another SHA-256."""
    return InputError(
        f"{place}: expected SHA-256 {sha256}, as the model's card says, found "
        f"{actual or 'no file'}; delete the model's card.json (and this file) and promote the "
        "study again"
    )
