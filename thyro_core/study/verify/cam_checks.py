"""Checks of a study's tables on maps against its predictions, its stored maps and its packs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import StudyConfig
from thyro_core.datasets.packs import image_proportions, open_pack, pack_index
from thyro_core.explain.features import feature_rows
from thyro_core.explain.maps import stored_maps
from thyro_core.explain.regions import SHARES
from thyro_core.store.store import Store
from thyro_core.study.verify.table_checks import differences
from thyro_core.tables import schemas

IMAGES_PER_RUN = 2
"""Images of each split and architecture whose features are recomputed."""

_RUN = ["split", "architecture"]
_KEYS = (*_RUN, "image_id", "threshold")


def row_faults(table: pa.Table, predictions: pa.Table) -> list[str]:
    """Faults of `cam_features` or `cam_trust` rows that do not match the predictions one to one.

    Args:
        table: a study's `cam_features` (one row a share) or `cam_trust`.
        predictions: its `predictions`.
    """
    keys = [*_RUN, "image_id", "label"]
    expected_rows = predictions.select(keys).to_pandas()
    if "threshold" in table.column_names:
        expected_rows = expected_rows.merge(pd.DataFrame({"threshold": SHARES}), how="cross")
        keys = [*keys, "threshold"]
    stored_rows = table.select(keys).to_pandas()
    both = expected_rows.merge(
        stored_rows.drop_duplicates(keys), on=keys, how="outer", indicator=True
    )
    counts = {
        "rows are missing": (both["_merge"] == "left_only").sum(),
        "rows are of images that this split does not test": (both["_merge"] == "right_only").sum(),
        "rows are there twice": stored_rows.duplicated(keys).sum(),
    }
    return [f"{number} {fault}" for fault, number in counts.items() if number]


def trust_faults(trust: pa.Table, predictions: pa.Table) -> list[str]:
    """Faults of rows, and of figures of a nodule that are not the same in every run of its image.

    Args:
        trust: a study's `cam_trust`.
        predictions: its `predictions`.
    """
    faults = row_faults(trust, predictions)
    names = ["nodule_area", "nodule_aspect", "nodule_tallest"]
    frame = trust.select(["image_id", *names]).to_pandas()
    counts = {}
    for name in names:
        values = frame[["image_id", name]].drop_duplicates()
        counts[name] = int(values["image_id"].duplicated().groupby(values["image_id"]).any().sum())
    return faults + [f"{n} images have several {name}" for name, n in counts.items() if n]


def feature_faults(store: Store, tables: Mapping[str, pa.Table], config: StudyConfig) -> list[str]:
    """Features of a few images of each run that do not follow from their maps and pixels.

    Args:
        store: where the packs lie.
        tables: the study's `cam_features` and `cams`, and the `images` of its manifest.
        config: the study's.
    """
    features, faults = tables["cam_features"], []
    (manifest_id,) = set(tables["images"]["manifest_id"].to_pylist())
    index = pack_index(tables["images"])
    proportions = image_proportions(tables["images"], config)
    with tempfile.TemporaryDirectory(prefix="thyro-") as scratch:
        for architecture in config.architectures:
            side = config.side(architecture)
            pack = open_pack(store, manifest_id, side, Path(scratch), len(index))
            sample = _first_images(
                features.filter(pc.equal(features["architecture"], architecture))
            )
            for row in _malignant_maps(tables["cams"], sample, architecture).to_pylist():
                cam = stored_maps(pa.Table.from_pylist([row], tables["cams"].schema))[0]
                same = (pc.equal(sample[name], row[name]) for name in ("split", "image_id"))
                stored_rows = sample.filter(pc.and_(*same))
                keys = {name: row[name] for name in ("study_id", *_RUN)}
                grey = np.asarray(pack[index[row["image_id"]]])
                label = stored_rows["label"][0].as_py()
                recomputed_rows = feature_rows(
                    row["image_id"],
                    label,
                    cam,
                    grey,
                    height_to_width=proportions[row["image_id"]],
                )
                expected_rows = [keys | values for values in recomputed_rows]
                table = schemas.rows_to_table("cam_features", expected_rows)
                faults += differences("cam_features", stored_rows, table, _KEYS)
    return faults


def _first_images(features: pa.Table) -> pa.Table:
    """The rows of the first images of each split."""
    frame = features.select([*_RUN, "image_id"]).to_pandas()
    rank = frame.groupby(_RUN)["image_id"].rank(method="dense")
    return features.filter(pa.array((rank <= IMAGES_PER_RUN).to_numpy(bool)))


def _malignant_maps(cams: pa.Table, features: pa.Table, architecture: str) -> pa.Table:
    malignant = cams.filter(
        pc.and_(pc.equal(cams["target_class"], 1), pc.equal(cams["architecture"], architecture))
    )
    images = set(zip(features["split"].to_pylist(), features["image_id"].to_pylist(), strict=True))
    pairs = zip(malignant["split"].to_pylist(), malignant["image_id"].to_pylist(), strict=True)
    return malignant.filter(pa.array([pair in images for pair in pairs], pa.bool_()))
