"""What an ingest packs of each image: whole or nodule, squashed or padded, clean or not."""

import json

import numpy as np
import pytest

from tests.unit.datasets.test_manifest import RULES, encode, name_of, put, speckle
from tests.unit.datasets.test_masks import disc, masks_by_name
from thyro_core.config import StudyConfig, ViewConfig, content_id
from thyro_core.datasets import packs
from thyro_core.datasets.manifest import ingest, load_manifest
from thyro_core.imaging.decode import resize
from thyro_core.store.store import open_store
from thyro_core.study.verify.object_checks import pack_faults, sample_images

NODULE = RULES.model_copy(update={"region": "nodule", "region_margin": 0.0})
HEADER = "image,label,x,y,w,h,mask"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def packed(store, manifest, tmp_path, side=16):
    index = packs.pack_index(manifest.table)
    pack = packs.open_pack(store, manifest.manifest_id, side, tmp_path / "scratch", len(index))
    rows = {name_of(row): row for row in manifest.table.to_pylist()}
    pixels = {
        name: np.array(pack[index[row["image_id"]]])
        for name, row in rows.items()
        if row["included"]
    }
    return rows, pixels


def test_default_configs_keep_their_ids() -> None:
    default = ViewConfig()
    assert default.model_dump() == {}
    names = set(ViewConfig.model_fields)
    assert not names & StudyConfig().model_dump(mode="json").keys()
    others = [
        {"region": "nodule"}, {"resize": "pad"}, {"clean": True}, {"region_margin": 0.2},
    ]  # fmt: skip
    ids = {content_id("s", StudyConfig.model_validate(each)) for each in [{}, *others]}
    assert len(ids) == len(others) + 1


def test_boxes_come_before_masks_and_what_has_neither_is_set_aside_by_name(tmp_path, store):
    pictures = {name: speckle(ord(name)) for name in "abcdef"}
    files = {f"{name}.png": encode(pixels) for name, pixels in pictures.items()}
    files |= {
        "m/b.png": encode(disc((40, 30), 10)),
        "m/c.png": encode(np.zeros((72, 72), np.uint8)),
    }
    rows = [
        "a.png,0,10,20,30,24,", "b.png,1,,,,,m/b.png", "c.png,0,,,,,m/c.png", "d.png,1,,,,,",
        "e.png,0,60,60,30,30,", "f.png,1,10,x,30,24,",
    ]  # fmt: skip
    manifest = ingest(put(tmp_path / "set", files, rows, HEADER), NODULE, store, (16,))
    table, pixels = packed(store, manifest, tmp_path)
    assert set(pixels) == {"a.png", "b.png"}
    assert table["a.png"]["view_box"] == [10, 20, 40, 44]
    assert table["b.png"]["view_box"] == [20, 30, 41, 51]
    for name, (left, top, right, bottom) in (
        ("a.png", (10, 20, 40, 44)), ("b.png", (20, 30, 41, 51)),
    ):  # fmt: skip
        cut = pictures[name[0]][top:bottom, left:right]
        np.testing.assert_array_equal(pixels[name], resize(np.ascontiguousarray(cut), 16))
        assert table[name]["view_mean"] == pytest.approx(cut.mean(), abs=0.5)
        assert table[name]["width"] == 72
    details = {name: table[name]["detail"] for name in table if not table[name]["included"]}
    assert {table[name]["reason"] for name in details} == {"no_nodule"}
    assert "show no nodule" in details["c.png"]
    assert "neither" in details["d.png"]
    assert "within 72 x 72 pixels, found 60, 60, 30, 30" in details["e.png"]
    assert "four numbers" in details["f.png"]
    assert load_manifest(store, manifest.manifest_id).view == NODULE.view
    sample = sample_images(manifest.table, NODULE)
    assert len(sample) == 2
    assert list(pack_faults(store, manifest.table, (16,), sample, view=NODULE)) == []
    assert list(pack_faults(store, manifest.table, (16,), sample, view=RULES)) == []
    padded = NODULE.model_copy(update={"resize": "pad"})
    assert list(pack_faults(store, manifest.table, (16,), sample, view=padded))


def test_several_boxes_of_an_image_are_joined_and_part_of_the_id(tmp_path, store):
    files = {f"{name}.png": encode(speckle(ord(name))) for name in "ab"}
    rows = ["a.png,0,10,20,10,12,", "a.png,0,30,40,10,12,", "b.png,1,5,5,40,40,"]
    source = put(tmp_path / "set", files, rows, HEADER)
    manifest = ingest(source, NODULE, store, (16,))
    table, _ = packed(store, manifest, tmp_path)
    assert table["a.png"]["view_box"] == [10, 20, 40, 52]
    other = put(tmp_path / "other", files, [rows[0], "a.png,0,30,40,12,12,", rows[2]], HEADER)
    assert ingest(other, NODULE, store, (16,)).manifest_id != manifest.manifest_id
    both = {ingest(place, RULES, store, (16,)).manifest_id for place in (source, other)}
    assert len(both) == 1  # of whole pictures the smallest row counts, as it always did


def test_masks_go_the_way_of_their_images(tmp_path, store):
    files = {f"{name}.png": encode(speckle(ord(name))) for name in "ab"}
    files |= {"m/a.png": encode(disc((40, 30), 10)), "m/b.png": encode(disc((20, 20), 8))}
    rows = ["a.png,0,,,,,m/a.png", "b.png,1,,,,,m/b.png"]
    source = put(tmp_path / "set", files, rows, HEADER)
    manifest = ingest(source, NODULE, store, (16,))
    masks = masks_by_name(manifest, store, tmp_path)
    inside = disc((40, 30), 10)[30:51, 20:41] > 0
    assert masks["a.png"].mean() == pytest.approx(inside.mean(), abs=0.01)


def test_padded_packs_and_packs_made_again_are_the_same(tmp_path, store):
    wide = {name: speckle(ord(name))[:40] for name in "ab"}
    files = {f"{name}.png": encode(pixels) for name, pixels in wide.items()}
    files |= {"m/a.png": encode(disc((20, 36), 10)[:40])}
    small = RULES.model_copy(update={"resize": "pad", "min_side": 32})
    source = put(tmp_path / "set", files, ["a.png,0,,,,,m/a.png", "b.png,1,,,,,"], HEADER)
    manifest = ingest(source, small, store, (72,))
    _, pixels = packed(store, manifest, tmp_path, 72)
    for name, square in pixels.items():
        np.testing.assert_array_equal(square[16:56], wide[name[0]])
        assert not square[:16].any()
        assert not square[56:].any()
    packs.ensure_packs(store, manifest.table, small, (36,))
    _, again = packed(store, manifest, tmp_path, 36)
    assert all((again[name] == resize(wide[name[0]], 36, pad=True)).all() for name in again)
    mask = masks_by_name(manifest, store, tmp_path)["a.png"]
    y, x = np.argwhere(mask).mean(axis=0) / len(mask)
    assert (x, y) == pytest.approx((36.5 / 72, 36.5 / 72), abs=0.01)
    assert packs.image_proportions(manifest.table, small) == dict.fromkeys(
        packs.pack_index(manifest.table), 1.0
    )


def test_clean_is_part_of_pack_and_facts(tmp_path, store):
    files = {f"{name}.png": encode(speckle(ord(name))) for name in "ab"}
    source = put(tmp_path / "set", files, ["a.png,0,,,,,", "b.png,1,,,,,"], HEADER)
    clean = RULES.model_copy(update={"clean": True})
    manifest = ingest(source, clean, store, (16,))
    assert manifest.manifest_id != ingest(source, RULES, store, (16,)).manifest_id
    for row in manifest.table.to_pylist():
        assert row["view_mean"] is not None
    rules = json.loads(store.read(f"manifests/{manifest.manifest_id}.json"))["rules"]
    assert rules["clean"] is True
