"""Baselines of the nodule: a map that sees no image leads none, one that does leads both."""

import numpy as np
import pytest

from thyro_core.evaluation.uncertainty import holm
from thyro_core.explain import localisation
from thyro_core.explain.faithfulness import (
    border_energy,
    cell_cover,
    energy_inside,
    pointing_hits,
    region_iou,
)
from thyro_core.explain.localisation import mark_checks, nodule_checks
from thyro_core.explain.trust import cluster_mean, localisation_finding, trust_tests
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import BORDER_SHARE, NODULE_MEASURES, TRUST_COLUMNS

SIDE, CELLS = 42, 7


def blobs(centres, width, cells=CELLS):
    """Gaussian maps, float32 (n, cells, cells), about centres given as shares of the side."""
    axis = (np.arange(cells) + 0.5) / cells
    down, across = (np.exp(-(((axis - c[:, None]) / width) ** 2)) for c in centres.T)
    return (down[:, :, None] * across[:, None, :]).astype(np.float32)


def discs(centres, radius):
    axis = (np.arange(SIDE) + 0.5) / SIDE
    down, across = (axis - c[:, None] for c in centres.T)
    return list((down**2)[:, :, None] + (across**2)[:, None, :] < radius**2)


def centred(rng, n, spread=0.12):
    """Nodules keep to the middle."""
    return np.clip(rng.normal(0.5, spread, (n, 2)), 0.15, 0.85)


def leads(maps, masks, groups=None):
    names = groups or [f"p{i}" for i in range(len(maps))]
    rows = nodule_checks(maps, masks, names, 0.5)
    cluster = np.unique(names, return_inverse=True)[1]
    return {
        (measure, baseline): cluster_mean(
            np.array([row[measure] - row[f"{measure}_{baseline}"] for row in rows]), cluster
        )
        for measure in NODULE_MEASURES
        for baseline in ("permuted", "mean_map")
    }


def test_a_constant_blob_that_sees_no_image_leads_no_baseline():
    """It beats the share of the area four times over, the level that used to stand for chance."""
    masks = discs(centred(np.random.default_rng(0), 60), 0.18)
    maps = np.repeat(blobs(np.array([[0.5, 0.5]]), 0.2), 60, axis=0)
    rows = nodule_checks(maps, masks, [f"p{i}" for i in range(60)], 0.5)
    area = np.mean([row["nodule_area"] for row in rows])
    assert np.mean([row["nodule_hit"] for row in rows]) > 4 * area
    for lead in leads(maps, masks).values():
        assert lead.mean == pytest.approx(0, abs=1e-6)
        assert not lead.p < 0.05


def trust_rows(maps, masks, groups, splits=2):
    """Rows of `cam_checks` of maps that stand in two splits, by measure and baseline."""
    keys = {"study_id": "s0", "architecture": "vgg16"}
    nothing = {name: float("nan") for name, *_ in TRUST_COLUMNS}
    rows = []
    for split in range(splits):
        tested = [i for i in range(len(maps)) if (i + split) % 5]
        checks = nodule_checks(maps[tested], [masks[i] for i in tested],
                               [groups[i] for i in tested], 0.5)  # fmt: skip
        rows += [keys | {"split": split, "image_id": f"i{i:03}", "label": i % 2}
                 | nothing | {"is_empty": False} | values
                 for i, values in zip(tested, checks, strict=True)]  # fmt: skip
    table = schemas.rows_to_table("cam_trust", rows)
    return trust_tests(table, {f"i{i:03}": name for i, name in enumerate(groups)})


@pytest.mark.parametrize("cells", [7, 8, 10])
@pytest.mark.parametrize("share_of_noise", [0, 0.02])
def test_a_central_blob_has_leads_whose_intervals_hold_0_and_no_finding(cells, share_of_noise):
    """A blob drawn without the image, the same in each map or shaken: through to the sentence."""
    rng = np.random.default_rng(7)
    masks = discs(centred(rng, 60), 0.18)
    centres = 0.5 + rng.normal(0, share_of_noise, (60, 2))
    rows = trust_rows(blobs(centres, 0.2, cells), masks, [f"p{i}" for i in range(60)])
    nodule = [row for row in rows if row["measure"] in NODULE_MEASURES]
    assert len(nodule) == 6
    for row in nodule:
        assert row["lead_low"] <= 0 <= row["lead_high"], row
        assert not row["p_adjusted"] < 0.05, row
    assert "by no measure" in localisation_finding(rows)


def test_maps_on_the_nodule_have_leads_above_0_and_a_finding():
    rng = np.random.default_rng(8)
    centres = centred(rng, 60)
    rows = trust_rows(blobs(centres, 0.15), discs(centres, 0.18), [f"p{i}" for i in range(60)])
    assert all(row["lead_low"] > 0 for row in rows if row["measure"] in NODULE_MEASURES)
    assert localisation_finding(rows).endswith("by energy, pointing, IoU.")


def test_maps_that_follow_their_image_lead_both():
    rng = np.random.default_rng(1)
    centres = centred(rng, 60)
    found = leads(blobs(centres + rng.normal(0, 0.03, (60, 2)), 0.15), discs(centres, 0.18))
    for key, lead in found.items():
        assert lead.low > 0.05, key
        assert lead.p < 1e-3, key


def test_false_alarms_and_coverage_where_maps_and_masks_only_share_the_middle():
    """Blobs near the middle, drawn without the image: each patient's images and blobs are alike."""
    alarms = dict.fromkeys(NODULE_MEASURES, 0)
    runs = 100
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(20), 2)
        masks = discs(centred(rng, 20)[patient], 0.2)
        maps = blobs(centred(rng, 20)[patient] + rng.normal(0, 0.01, (40, 2)), 0.2)
        found = leads(maps, masks, [f"p{i}" for i in patient])
        for measure in NODULE_MEASURES:
            alarms[measure] += found[measure, "permuted"].p < 0.05
    assert max(alarms.values()) / runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_the_permuted_baseline_is_the_mean_over_the_pairs_of_other_groups():
    rng = np.random.default_rng(2)
    n, groups = 5, ["a", "a", "b", "c", "d"]
    maps, masks = rng.random((n, 4, 4)).astype(np.float32), list(rng.random((n, 20, 20)) > 0.6)
    rows = nodule_checks(maps, masks, groups, 0.5)
    plain = {
        "nodule_energy": lambda i, j: energy_inside(maps[i][None], masks[j][None])[0],
        "nodule_hit": lambda i, j: pointing_hits(maps[i][None], masks[j][None])[0],
        "nodule_iou": lambda i, j: region_iou(maps[i], masks[j], 0.5),
    }
    for name, measure in plain.items():
        pairs = [(i, j) for i in range(n) for j in range(n) if groups[i] != groups[j]]
        grand = np.mean([measure(*pair) for pair in pairs])
        for k, row in enumerate(rows):
            own_map = np.mean([measure(i, j) for i, j in pairs if i == k])
            own_mask = np.mean([measure(i, j) for i, j in pairs if j == k])
            assert row[name] == pytest.approx(measure(k, k), abs=1e-6)
            assert row[f"{name}_permuted"] == pytest.approx(own_map + own_mask - grand, abs=1e-6)


def marks_at(corners, cells=CELLS):
    """A square mark of a seventh of the side at a corner given as shares of the side, as cover."""
    masks = np.zeros((len(corners), SIDE, SIDE), dtype=bool)
    for mask, (down, across) in zip(masks, (corners * SIDE).astype(int), strict=True):
        mask[down : down + SIDE // 7, across : across + SIDE // 7] = True
    return cell_cover(masks, cells, cells)


def mark_rows(maps, covers, groups):
    """Rows of `cam_checks` on border and marks, by measure and baseline."""
    keys = {"study_id": "s0", "split": 0, "architecture": "vgg16"}
    nothing = {name: float("nan") for name, *_ in TRUST_COLUMNS} | {"is_empty": False}
    baselines = mark_checks(maps, covers, groups)
    energy = (maps * covers).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    rows = [
        keys | {"image_id": f"i{i:03}", "label": i % 2} | nothing | values
        | {"mark_energy": float(energy[i]), "mark_area": float(covers[i].mean()),
           "border_energy": float(border_energy(maps[i][None], BORDER_SHARE)[0]),
           "border_area": 1 - (1 - 2 * BORDER_SHARE) ** 2}
        for i, values in enumerate(baselines)
    ]  # fmt: skip
    table = schemas.rows_to_table("cam_trust", rows)
    found = trust_tests(table, {f"i{i:03}": name for i, name in enumerate(groups)})
    return {(row["measure"], row["baseline"]): row for row in found}


@pytest.mark.parametrize("share_of_noise", [0, 0.02])
def test_a_central_blob_leads_the_area_of_marks_and_no_baseline_of_other_images(share_of_noise):
    """Callipers stand around nodules, which keep to the middle, as a blob does that sees nothing.

    The area of the frame it leads too, downwards: that alone shows nothing, and the page says so.
    """
    rng = np.random.default_rng(11)
    covers = marks_at(centred(rng, 60))
    centres = 0.5 + rng.normal(0, share_of_noise, (60, 2))
    rows = mark_rows(blobs(centres, 0.25), covers, [f"p{i}" for i in range(60)])
    assert rows["mark_energy", "area"]["lead_low"] > 0
    assert rows["border_energy", "area"]["lead_high"] < 0
    for baseline in ("permuted", "mean_map"):
        row = rows["mark_energy", baseline]
        assert row["lead_low"] <= 0 <= row["lead_high"], row
        assert not row["p_adjusted"] < 0.05, row
        assert row["n"] == 60
    assert ("border_energy", "permuted") not in rows


def test_maps_on_their_own_marks_lead_every_baseline():
    rng = np.random.default_rng(12)
    corners = centred(rng, 60)
    rows = mark_rows(blobs(corners + 0.07, 0.2), marks_at(corners), [f"p{i}" for i in range(60)])
    for baseline in ("permuted", "mean_map", "area"):
        assert rows["mark_energy", baseline]["lead_low"] > 0
    for baseline in ("permuted", "mean_map"):
        assert rows["mark_energy", baseline]["p_adjusted"] < 1e-3
    # What any map may lead or lack without looking at the image is tested by nothing.
    for measure in ("mark_energy", "border_energy"):
        assert np.isnan(rows[measure, "area"]["p"])
        assert np.isnan(rows[measure, "area"]["p_adjusted"])
    marks = [rows["mark_energy", baseline]["p"] for baseline in ("permuted", "mean_map")]
    adjusted = [
        rows["mark_energy", baseline]["p_adjusted"] for baseline in ("permuted", "mean_map")
    ]
    assert adjusted == holm(marks)


def test_images_without_marks_take_no_part_in_the_check_of_marks():
    rng = np.random.default_rng(13)
    covers = marks_at(centred(rng, 30))
    covers[20:] = 0
    names = [f"p{i}" for i in range(30)]
    rows = mark_rows(rng.random((30, CELLS, CELLS)).astype(np.float32), covers, names)
    assert {rows["mark_energy", b]["n"] for b in ("permuted", "mean_map", "area")} == {20}
    assert rows["border_energy", "area"]["n"] == 30


def test_the_baselines_of_marks_are_those_of_nodules_on_the_same_masks():
    """Sums stand for the pairs: the same masks give what `nodule_checks` finds pair by pair."""
    rng = np.random.default_rng(14)
    groups = ["a", "a", "b", "c", "d", "b"]
    maps, masks = rng.random((6, 4, 4)).astype(np.float32), rng.random((6, 20, 20)) > 0.6
    maps[1], masks[4] = 0, False
    found = mark_checks(maps, cell_cover(masks, 4, 4), groups)
    for row, other in zip(found, nodule_checks(maps, list(masks), groups, 0.5), strict=True):
        for baseline in ("permuted", "mean_map"):
            expected = other[f"nodule_energy_{baseline}"]
            assert row[f"mark_energy_{baseline}"] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    alone = mark_checks(maps[:2], cell_cover(masks[:2], 4, 4), ["a", "a"])
    assert all(np.isnan(value) for row in alone for value in row.values())
    assert mark_checks(maps[:0], np.zeros((0, 4, 4)), []) == []


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    groups = ["a", "a", "b", "c", "d", "b", "e"]
    maps, masks = rng.random((7, 4, 4)).astype(np.float32), list(rng.random((7, 20, 20)) > 0.6)
    whole = nodule_checks(maps, masks, groups, 0.5)
    monkeypatch.setattr(localisation, "_MAPS_AT_ONCE", 3)
    for row, expected in zip(nodule_checks(maps, masks, groups, 0.5), whole, strict=True):
        assert row == pytest.approx(expected)


def test_the_mean_map_is_that_of_the_other_groups():
    rng = np.random.default_rng(3)
    groups = ["a", "a", "b"]
    maps, masks = rng.random((3, 4, 4)).astype(np.float32), list(rng.random((3, 20, 20)) > 0.6)
    (row, *_) = nodule_checks(maps, masks, groups, 0.5)
    other = maps[2][None]
    assert row["nodule_energy_mean_map"] == pytest.approx(energy_inside(other, masks[0][None])[0])
    assert row["nodule_hit_mean_map"] == pointing_hits(other, masks[0][None])[0]
    assert row["nodule_iou_mean_map"] == pytest.approx(region_iou(maps[2], masks[0], 0.5))


def test_without_mask_map_or_partner():
    rng = np.random.default_rng(4)
    maps, mask = rng.random((3, 4, 4)).astype(np.float32), np.eye(20, dtype=bool)
    maps[1] = 0
    none, empty, alone = nodule_checks(maps, [None, mask, mask], ["a", "b", "c"], 0.5)
    assert set(none.values()) == {None}
    assert empty["nodule_area"] == alone["nodule_area"] == 1 / 20
    for name, value in empty.items():
        assert np.isnan(value) == (name != "nodule_area")
    for name, value in alone.items():
        assert np.isnan(value) == name.endswith(("_permuted", "_mean_map"))
    assert nodule_checks(maps[:0], [], [], 0.5) == []


def test_a_mask_without_a_pixel_is_undefined_and_spoils_no_other_image():
    rng = np.random.default_rng(9)
    maps, masks = rng.random((5, 4, 4)).astype(np.float32), list(rng.random((5, 20, 20)) > 0.6)
    names = ["a", "b", "c", "d", "e"]
    expected = nodule_checks(maps[:4], masks[:4], names[:4], 0.5)
    *found, last = nodule_checks(maps, [*masks[:4], np.zeros((20, 20), dtype=bool)], names, 0.5)
    assert repr(found) == repr(expected)
    assert last["nodule_area"] == 0
    assert all(np.isnan(value) for name, value in last.items() if name != "nodule_area")
