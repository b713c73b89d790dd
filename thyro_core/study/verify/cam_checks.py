"""A study's tables on activation maps against its predictions, its stored maps and its packs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.explain.features import feature_rows
from thyro_core.explain.maps import stored_maps
from thyro_core.explain.regions import SHARES
from thyro_core.store.store import Store
from thyro_core.study.verify.table_checks import differences
from thyro_core.tables import schemas

SAMPLE = 2
"""Images of each split and architecture whose features are computed anew."""

_RUN = ["split", "architecture"]
_KEYS = (*_RUN, "image_id", "threshold")


def row_faults(table: pa.Table, predictions: pa.Table) -> list[str]:
    """Rows of `cam_features` or `cam_trust` that are not, one for one, of the predictions.

    Args:
        table: a study's `cam_features` (one row a share) or `cam_trust`.
        predictions: its `predictions`.
    """
    keys = [*_RUN, "image_id", "label"]
    wanted = predictions.select(keys).to_pandas()
    if "threshold" in table.column_names:
        wanted = wanted.merge(pd.DataFrame({"threshold": SHARES}), how="cross")
        keys = [*keys, "threshold"]
    found = table.select(keys).to_pandas()
    both = wanted.merge(found.drop_duplicates(keys), on=keys, how="outer", indicator=True)
    counts = {
        "rows are missing": (both["_merge"] == "left_only").sum(),
        "rows are of strangers": (both["_merge"] == "right_only").sum(),
        "rows are there twice": found.duplicated(keys).sum(),
    }
    return [f"{number} {what}" for what, number in counts.items() if number]


def feature_faults(
    store: Store, tables: Mapping[str, pa.Table], sides: Mapping[str, int]
) -> list[str]:
    """Features of a few images of each run that do not follow from their maps and pixels.

    Args:
        store: where the packs lie.
        tables: the study's `cam_features` and `cams`, and the `images` of its manifest.
        sides: side of the network input by architecture [pixels].
    """
    features, faults = tables["cam_features"], []
    (manifest_id,) = set(tables["images"]["manifest_id"].to_pylist())
    index = pack_index(tables["images"])
    with tempfile.TemporaryDirectory(prefix="thyro-") as scratch:
        for architecture, side in sides.items():
            pack = open_pack(store, manifest_id, side, Path(scratch), len(index))
            own = _sample(features.filter(pc.equal(features["architecture"], architecture)))
            for row in _malignant(tables["cams"], own, architecture).to_pylist():
                cam = stored_maps(pa.Table.from_pylist([row], tables["cams"].schema))[0]
                stored = _of_image(own, row)
                keys = {name: row[name] for name in ("study_id", *_RUN)}
                grey = np.asarray(pack[index[row["image_id"]]])
                label = stored["label"][0].as_py()
                made = feature_rows(row["image_id"], label, cam, grey)
                expected = [keys | one for one in made]
                faults += differences(
                    stored, schemas.rows_to_table("cam_features", expected), _KEYS
                )
    return faults


def _sample(features: pa.Table) -> pa.Table:
    """The rows of the first images of each split."""
    frame = features.select([*_RUN, "image_id"]).to_pandas()
    rank = frame.groupby(_RUN)["image_id"].rank(method="dense")
    return features.filter(pa.array((rank <= SAMPLE).to_numpy(bool)))


def _malignant(cams: pa.Table, features: pa.Table, architecture: str) -> pa.Table:
    malignant = cams.filter(
        pc.and_(pc.equal(cams["target_class"], 1), pc.equal(cams["architecture"], architecture))
    )
    wanted = set(zip(features["split"].to_pylist(), features["image_id"].to_pylist(), strict=True))
    pairs = zip(malignant["split"].to_pylist(), malignant["image_id"].to_pylist(), strict=True)
    return malignant.filter(pa.array([pair in wanted for pair in pairs], pa.bool_()))


def _of_image(features: pa.Table, row: Mapping[str, object]) -> pa.Table:
    same = (pc.equal(features[name], row[name]) for name in ("split", "image_id"))
    return features.filter(pc.and_(*same))
