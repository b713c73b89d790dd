"""Nodule masks: decoded once, joined, made square, packed in the images' order, never guessed."""

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from tests.unit.datasets.test_manifest import RULES, encode, name_of, put, speckle
from thyro_core.datasets import masks as mask_packs
from thyro_core.datasets import packs
from thyro_core.datasets.manifest import ingest
from thyro_core.datasets.masks import MASK_SIDE, mask_of, mask_square, open_masks
from thyro_core.errors import InputError
from thyro_core.imaging import decode as pictures
from thyro_core.store.keys import manifest_key, mask_key, pack_key
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import open_store

HEADER = "image,label,mask"


def disc(centre, radius, side=72, value=255):
    y, x = np.mgrid[:side, :side]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    return (inside * value).astype(np.uint8)


def good(names="ab"):
    return {f"{name}.png": encode(speckle(ord(name))) for name in names}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def masks_by_name(manifest, store, tmp_path):
    index = packs.pack_index(manifest.table)
    packed = open_masks(store, manifest.manifest_id, tmp_path / "scratch", len(index))
    rows = [row for row in manifest.table.to_pylist() if row["included"]]
    return {name_of(row): mask_of(packed, index[row["image_id"]]) for row in rows}


def count(store, manifest):
    return json.loads(store.read(manifest_key(manifest.manifest_id)))["masks"]


def test_masks_are_packed_in_the_images_order(tmp_path, store):
    files = good() | {"m/1.png": encode(disc((20, 20), 10)), "m/2.png": encode(disc((50, 40), 8))}
    source = put(tmp_path / "set", files, ["a.png,0,m/1.png", "b.png,1,m\\2.png"], HEADER)
    found = ingest(source, RULES, store, (16,))
    masks = masks_by_name(found, store, tmp_path)
    for name, (centre, radius) in {"a.png": ((20, 20), 10), "b.png": ((50, 40), 8)}.items():
        y, x = np.argwhere(masks[name]).mean(axis=0)
        scale = MASK_SIDE / 72
        assert (y, x) == pytest.approx([(c + 0.5) * scale - 0.5 for c in centre], abs=0.3)
        assert masks[name].mean() == pytest.approx(np.pi * radius**2 / 72**2, rel=0.05)
    assert count(store, found) == 2
    assert sorted(store.keys(f"packs/{found.manifest_id}")) == [
        pack_key(found.manifest_id, 16), mask_key(found.manifest_id),
    ]  # fmt: skip


def test_masks_as_busi_has_them_are_joined(tmp_path, store):
    files = {f"benign/{name}": data for name, data in good("a").items()}
    files |= {f"malignant/{name}": data for name, data in good("b").items()}
    one, other = disc((15, 15), 6), disc((50, 50), 9)
    files |= {"benign/a_mask.png": encode(one), "benign/a_mask_1.png": encode(other)}
    for name, data in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    found = ingest(str(tmp_path / "set"), RULES, store, (16,))
    masks = masks_by_name(found, store, tmp_path)
    assert masks["b.png"] is None
    np.testing.assert_array_equal(masks["a.png"], mask_square(np.maximum(one, other)) > 0)


def test_a_set_without_masks_has_no_pack_and_keeps_its_id(tmp_path, store):
    source = put(tmp_path / "set", good(), ["a.png,0", "b.png,1"])
    found = ingest(source, RULES, store, (16,))
    # Made of the ingest version and what counts of the files: without masks, nothing of masks.
    assert found.manifest_id == "m1e38dcd305f84bbd"
    assert not store.exists(mask_key(found.manifest_id))
    assert open_masks(store, found.manifest_id, tmp_path, 2) is None
    assert mask_of(None, 0) is None
    assert count(store, found) == 0


def changed(files, **masks):
    return files | {f"m/{name}.png": data for name, data in masks.items()}


def test_bytes_of_masks_count_in_the_id_and_their_names_do_not(tmp_path):
    ids = []
    for i, (name, radius) in enumerate([("1", 10), ("2", 10), ("1", 11)]):
        files = changed(good(), **{name: encode(disc((30, 30), radius))})
        source = put(tmp_path / f"{i}", files, [f"a.png,0,m/{name}.png", "b.png,1,"], HEADER)
        store = open_store(str(tmp_path / f"store-{i}"))
        ids.append(ingest(source, RULES, store, (16,)).manifest_id)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (b"no image", "cannot be decoded"),
        (encode(disc((30, 30), 5)[:40]), "have another aspect ratio"),
        (encode(np.zeros((72, 72), np.uint8)), "show no nodule"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named_and_set_aside(tmp_path, store, mask, words):
    files = changed(good("abc"), bad=mask, fine=encode(disc((30, 30), 9)))
    rows = ["a.png,0,m/bad.png", "a.png,0,m/fine.png", "b.png,1,m/fine.png", "c.png,1,m/bad.png"]
    source = put(tmp_path / "set", files, rows, HEADER)
    found = ingest(source, RULES, store, (16,))
    rows = {name_of(row): row["image_id"][:12] for row in found.table.to_pylist()}
    culprits = ", ".join(sorted(rows[name] for name in ("a.png", "c.png")))
    (note,) = [note for note in found.notes if words in note]
    assert note.startswith("masks set aside that ")
    assert note.endswith(f"of image {culprits}")
    masks = masks_by_name(found, store, tmp_path)
    assert [name for name, mask in masks.items() if mask is not None] == ["b.png"]
    assert count(store, found) == 1


def test_without_a_usable_mask_nothing_is_packed(tmp_path, store):
    source = put(tmp_path / "set", changed(good(), x=b"?"), ["a.png,0,m/x.png", "b.png,1,"], HEADER)
    found = ingest(source, RULES, store, (16,))
    assert not store.exists(mask_key(found.manifest_id))
    assert ingest(source, RULES, store, (16,)) == found


def test_a_mask_that_is_listed_but_missing_is_noted(tmp_path, store):
    files = changed(good(), here=encode(disc((30, 30), 9)))
    rows = ["a.png,0,m/gone.png", "a.png,0,m/here.png", "b.png,1,m/here.png"]
    found = ingest(put(tmp_path / "set", files, rows, HEADER), RULES, store, (16,))
    assert "1 image with a mask that is missing: set aside" in found.notes
    assert masks_by_name(found, store, tmp_path)["a.png"] is None
    assert count(store, found) == 1


def test_a_mask_that_cannot_be_read_is_noted(tmp_path, store, monkeypatch):
    files = changed(good(), one=encode(disc((30, 30), 9)), two=encode(disc((30, 30), 8)))
    source = put(tmp_path / "set", files, ["a.png,0,m/one.png", "b.png,1,m/two.png"], HEADER)
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.0)
    real = LocalFileSystem._open

    def refuse(self, path, *args, **keys):
        if path.endswith("one.png"):
            raise PermissionError(13, "refused", path)
        return real(self, path, *args, **keys)

    monkeypatch.setattr(LocalFileSystem, "_open", refuse)
    found = ingest(source, RULES, store, (16,))
    assert "1 image with a mask that cannot be read: set aside" in found.notes
    assert masks_by_name(found, store, tmp_path)["a.png"] is None
    assert count(store, found) == 1


def test_a_link_out_of_the_source_is_no_mask(tmp_path, store):
    (tmp_path / "outside.png").write_bytes(encode(disc((30, 30), 9)))
    source = put(tmp_path / "set", good(), ["a.png,0,m.png", "b.png,1,"], HEADER)
    Path(source, "m.png").symlink_to(tmp_path / "outside.png")
    found = ingest(source, RULES, store, (16,))
    assert "1 image with a mask that is missing: set aside" in found.notes
    assert not store.exists(mask_key(found.manifest_id))


@pytest.mark.parametrize("path", ["../m.png", "/m.png", "s3://b/m.png", "C:\\m.png"])
def test_a_mask_may_not_leave_the_source(tmp_path, store, path):
    source = put(tmp_path / "set", good(), [f"a.png,0,{path}", "b.png,1,"], HEADER)
    found = ingest(source, RULES, store, (16,))
    assert any(
        note.startswith("1 fault in labels.csv: line 2: ") and note.endswith("path: no mask")
        for note in found.notes
    )
    assert not store.exists(mask_key(found.manifest_id))


def test_masks_of_excluded_images_are_not_decoded(tmp_path, store, monkeypatch):
    files = changed(good("abc"), bad=b"?") | {"a.png": encode(speckle(1, 40))}
    rows = ["a.png,0,m/bad.png", "b.png,1,", "c.png,0,"]
    found = ingest(put(tmp_path / "set", files, rows, HEADER), RULES, store, (16,))
    assert not [note for note in found.notes if "masks set aside" in note]


def test_a_missing_pack_of_masks_comes_back(tmp_path, store, monkeypatch):
    files = changed(good(), one=encode(disc((30, 30), 9)))
    source = put(tmp_path / "set", files, ["a.png,0,m/one.png", "b.png,1,"], HEADER)
    found = ingest(source, RULES, store, (16,))
    before = {key: store.read(key) for key in store.keys("")}
    store.delete(mask_key(found.manifest_id))
    assert ingest(source, RULES, store, (16,)) == found
    assert {key: store.read(key) for key in store.keys("")} == before
    monkeypatch.setattr(pictures, "decode", None)
    assert ingest(source, RULES, store, (16,)) == found


def test_in_an_object_store_it_is_the_same(tmp_path, store):
    files = changed(good(), one=encode(disc((30, 30), 9)))
    source = put(tmp_path / "set", files, ["a.png,0,m/one.png", "b.png,1,"], HEADER)
    local = ingest(source, RULES, store, (16,))
    fs = fsspec.filesystem("memory")
    fs.put(f"{source}/", f"/masks-{tmp_path.name}/", recursive=True)
    remote_store = open_store(f"memory://masks-store-{tmp_path.name}")
    remote = ingest(f"memory://masks-{tmp_path.name}", RULES, remote_store, (16,))
    assert remote.manifest_id == local.manifest_id
    assert remote.notes == local.notes
    key = mask_key(local.manifest_id)
    assert remote_store.read(key) == store.read(key)


def test_a_mask_that_changes_while_it_is_read_is_an_error(tmp_path, store, monkeypatch):
    files = changed(good(), one=encode(disc((30, 30), 9)))
    source = put(tmp_path / "set", files, ["a.png,0,m/one.png", "b.png,1,"], HEADER)
    real = mask_packs.mask_digests

    def hash_then_change(fs, root, names):
        found = real(fs, root, names)
        Path(source, "m/one.png").write_bytes(encode(disc((30, 30), 5)))
        return found

    monkeypatch.setattr(mask_packs, "mask_digests", hash_then_change)
    with pytest.raises(InputError, match=r"one\.png: expected the file .* found other contents"):
        ingest(source, RULES, store, (16,))


@pytest.mark.parametrize("value", [1, 2, 255])
def test_inside_is_what_reaches_half_of_the_peak(value):
    expected = mask_square(disc((36, 36), 20))
    np.testing.assert_array_equal(mask_square(disc((36, 36), 20, value=value)), expected)


def test_jpeg_seams_are_outside():
    file = io.BytesIO()
    Image.fromarray(disc((36, 36), 20)).save(file, "JPEG")
    grey = np.asarray(Image.open(file))
    assert len(np.unique(grey)) > 2
    assert mask_square(grey).mean() == pytest.approx(np.pi * 20**2 / 72**2, rel=0.03)


def test_a_pixel_is_inside_when_half_of_its_area_is():
    grey = np.zeros((2 * MASK_SIDE, 2 * MASK_SIDE), np.uint8)
    grey[0, :2] = grey[10, 10] = 255
    expected = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    expected[0, 0] = 1
    np.testing.assert_array_equal(mask_square(grey), expected)


def test_a_damaged_pack_is_refused(tmp_path, store):
    store.write(mask_key("m0"), b"nothing")
    with pytest.raises(InputError, match=r"masks\.npy: expected a pack of uint8 \(3, 224, 224\)"):
        open_masks(store, "m0", tmp_path, 3)
