"""The leakage gate: proof that no split tests what it was trained on.

It shares nothing with the code that makes groups or splits: what belongs together is worked out
again from the `images` table, and what a row of `splits` says of its patient or group is not read.
Given the pixels that the networks see, it looks for the same picture in them anew, whatever the
table says; without them it cannot say anything of pictures, and `check_leakage` does not.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from thyro_core.datasets.packs import pack_index
from thyro_core.errors import LeakageError
from thyro_core.imaging.near_duplicates import fingerprint, group_labels, near_duplicates
from thyro_core.imaging.view import in_proportion, view_size
from thyro_core.types import Grey

_LINKS = ("image_id", "pixel_hash", "patient_id", "group_id")
_IS_TEST_ROLE = {"train": False, "val": False, "test": True}
_NO_SIDE = "unused"


def check_leakage(
    splits: pa.Table, images: pa.Table, pack: Grey | None = None, *, pad: bool = False
) -> None:
    """Let only splits pass in which nothing stands on both sides.

    Checked are images, exact pixels, patients, groups, and whatever is linked through a chain of
    those, be it by way of excluded images. The sides are test, and train with val. With a pack the
    same picture is looked for in its pixels too, by the default bound, whatever the manifest's
    rules; images that are only similar are left to the groups of the manifest.

    Args:
        splits: a `splits` table; its split, image_id and role are read.
        images: the `images` table of the manifest it was made from.
        pack: uint8 (n, side, side), its included images, as `open_pack` gives them; None: the
            pictures themselves are not looked at.
        pad: whether the pack's images stand in the middle of black, in their proportions.

    Raises:
        LeakageError: something is shared, or an image or role is unknown so that it cannot be
            checked; the message names the first few cases.
    """
    rows_by_side = _rows_by_side(splits, images, pack, pad=pad)
    cases = {kind: rows for kind, rows in _shared_rows(rows_by_side) if len(rows)}
    shared_cases = [
        f"split {row.split}: {kind} {row.key} has {row.train} training and {row.test} test images"
        for kind, rows in cases.items()
        for row in rows.itertuples(index=False)
    ]
    if shared_cases:
        more = f" (and {len(shared_cases) - 5} more)" if len(shared_cases) > 5 else ""
        cure = "make the splits again from this manifest"
        if cases.keys() <= {"picture", "linked"}:
            cure = "lower duplicate_correlation and similar_correlation: these images are one group"
        msg = (
            f"expected nothing on both sides of a split, found {len(shared_cases)} cases: "
            f"{'; '.join(shared_cases[:5])}{more}; {cure}"
        )
        raise LeakageError(msg)


def _rows_by_side(
    splits: pa.Table, images: pa.Table, pack: Grey | None, *, pad: bool
) -> pd.DataFrame:
    """Rows of `splits` with their side and the links of their image."""
    links = images.select([*_LINKS, "included"]).to_pandas()
    pictures = {} if pack is None else _pictures(images, splits, pack, pad=pad)
    links["picture"] = pd.Series(links["image_id"].map(pictures), dtype=object)
    links["linked"] = _components(links)
    links = links[links["included"]].drop_duplicates("image_id").drop(columns="included")
    rows = splits.select(["split", "image_id", "role"]).to_pandas()
    rows_by_side: pd.DataFrame = rows.merge(links, on="image_id", how="left")
    strangers = int(rows_by_side["linked"].isna().sum())
    roles = sorted(set(rows["role"]) - set(_IS_TEST_ROLE) - {_NO_SIDE})
    if strangers or roles:
        msg = (
            "expected splits of included images of this manifest with the roles train, val and "
            f"test, found {strangers} rows of other images and other roles {roles}; "
            "make the splits again from this manifest"
        )
        raise LeakageError(msg)
    rows_by_side = rows_by_side[rows_by_side["role"] != _NO_SIDE].copy()
    rows_by_side["test"] = rows_by_side["role"].map(_IS_TEST_ROLE).astype(bool)
    return rows_by_side


def _pictures(images: pa.Table, splits: pa.Table, pack: Grey, *, pad: bool) -> dict[str, str]:
    """A name for the picture of each image of the splits that shows the same one as another."""
    rows = pack_index(images)
    shapes = images.select(["image_id", "width", "height", "view_box"]).to_pylist()
    sizes = {row["image_id"]: view_size(row) for row in shapes}
    names = sorted(set(splits["image_id"].to_pylist()) & rows.keys())
    prints = [fingerprint(in_proportion(pack[rows[name]], sizes[name], pad=pad)) for name in names]
    pairs = [(pair.first, pair.second) for pair in near_duplicates(prints) if pair.same_picture]
    groups = group_labels(pairs, len(names))
    counts = np.bincount(groups, minlength=1)
    group_by_name = zip(names, groups, strict=True)
    return {name: f"picture {group}" for name, group in group_by_name if counts[group] > 1}


def _components(images: pd.DataFrame) -> list[str]:
    """For each row, a name for all that hangs together by any link: a graph of rows and keys."""
    nodes = len(images)
    rows, keys = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for column in (*_LINKS, "picture"):
        codes, values = pd.factorize(images[column])
        present = np.flatnonzero(codes >= 0)
        rows.append(present)
        keys.append(nodes + codes[present])
        nodes += len(values)
    if nodes == 0:
        return []
    ends = np.concatenate(rows), np.concatenate(keys)
    links = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(nodes, nodes))
    component = connected_components(links, directed=False)[1]
    return [f"chain {number}" for number in component[: len(images)]]


def _shared_rows(rows_by_side: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Per kind of link, what stands on both sides: columns split, key, train, test (counts)."""
    for kind in (*_LINKS, "picture", "linked"):
        sides = rows_by_side.groupby(["split", kind])["test"].agg(["size", "sum"]).reset_index()
        sides = sides.rename(columns={kind: "key", "sum": "test"})
        sides["train"] = sides["size"] - sides["test"]
        yield kind, sides[(sides["test"] > 0) & (sides["train"] > 0)]
