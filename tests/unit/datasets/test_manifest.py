"""Ingest with real files: every state, the id's invariances, resumption, and nothing personal."""

import io
import json
import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.datasets import manifest, packs
from thyro_core.datasets.manifest import REASONS, ingest, load_manifest
from thyro_core.errors import InputError
from thyro_core.imaging import decode
from thyro_core.store.keys import manifest_key, pack_key
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import Store, open_store

RULES = IngestConfig(
    blur_bound=0.1,
    overlay_bound=0.02,
    hash_distance=10,
    duplicate_correlation=0.9,
    max_bytes=50_000,
)
SIDES = (16, 24)
STATES = {
    "good.png": None,
    "unlabelled.png": None,
    "missing.png": "missing",
    "stray.png": "not_listed",
    "twice.png": "label_conflict",
    "refused.png": "excluded_by_specialist",
    "broken.png": "undecodable",
    "cut.png": "undecodable",
    "bomb.png": "undecodable",
    "frames.tif": "undecodable",
    "heavy.bmp": "undecodable",
    "tiny.png": "too_small",
    "marked.png": "artefact",
    "blurred.png": "blurred",
    "near-benign.png": "near_duplicate_conflict",
    "near-malignant.png": "near_duplicate_conflict",
    "copied.png": "duplicate",
    "copied.bmp": "duplicate",
    "copy-benign.png": "label_conflict",
    "copy-malignant.bmp": "label_conflict",
}


def speckle(seed: int, side: int = 72) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(size=(side, side))
    return np.clip(gaussian_filter(grain, 0.8) * 80 + 110, 1, 254).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def marked(seed: int) -> np.ndarray:
    colour = np.repeat(speckle(seed)[:, :, None], 3, axis=2)
    colour[24:48, 24:48] = (255, 0, 0)
    return colour


def every_state() -> dict[str, bytes]:
    """A file for each name in STATES that is there."""
    near = speckle(20)
    frames = [Image.fromarray(speckle(30 + i)) for i in range(2)]
    return {
        "good.png": encode(speckle(1)),
        "unlabelled.png": encode(speckle(2)),
        "stray.png": encode(speckle(3)),
        "twice.png": encode(speckle(4)),
        "refused.png": encode(speckle(5)),
        "broken.png": b"\x89PNG\r\n\x1a\nno more",
        "cut.png": encode(speckle(6))[:2000],
        "bomb.png": bomb(),
        "frames.tif": encode(speckle(30), "TIFF", save_all=True, append_images=frames),
        "heavy.bmp": encode(speckle(7, 250), "BMP"),
        "tiny.png": encode(speckle(8, 63)),
        "marked.png": encode(marked(9)),
        "blurred.png": encode(
            gaussian_filter(speckle(10, 96).astype(float) * 3 - 200, 4)
            .clip(0, 255)
            .astype(np.uint8)
        ),
        "near-benign.png": encode(near),
        "near-malignant.png": encode((near * 0.9 + 12).astype(np.uint8)),
        "copied.png": encode(speckle(11)),
        "copied.bmp": encode(speckle(11), "BMP"),
        "copied-too.png": encode(speckle(11), compress_level=1),
        "copy-benign.png": encode(speckle(12)),
        "copy-malignant.bmp": encode(speckle(12), "BMP"),
    }


def rows_of(files: dict[str, bytes]) -> list[str]:
    labels = dict.fromkeys(files, "benign") | {"missing.png": "malignant", "unlabelled.png": ""}
    labels |= {"near-malignant.png": "malignant", "copy-malignant.bmp": "malignant"}
    labels |= {"copied.png": "malignant", "copied.bmp": "malignant", "copied-too.png": "malignant"}
    rows = [f"{name},{label}" for name, label in labels.items() if name != "stray.png"]
    return [*rows, "twice.png,malignant"]


def put(folder: Path, files: dict[str, bytes], rows: list[str], header="image,label") -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(folder)


def small(folder: Path, names: str = "abcd", patients: str = "xxyz") -> str:
    """A few good images, alternately benign and malignant, with patients."""
    files = {f"{name}.png": encode(speckle(ord(name))) for name in names}
    rows = [
        f"{name}.png,{i % 2},{patient}"
        for i, (name, patient) in enumerate(zip(names, patients, strict=True))
    ]
    return put(folder, files, rows, "image,label,patient_id")


def name_of(row: dict[str, object]) -> str:
    return str(row["uri"]).rsplit("/", 1)[-1]


def objects(store: Store) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.keys("")}


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def stopped_decoding(monkeypatch):
    def stop() -> None:
        def refuse(data: bytes, rules: IngestConfig) -> decode.DecodedImage:
            raise AssertionError("decoded again")

        monkeypatch.setattr(decode, "decode", refuse)

    return stop


@pytest.fixture
def states_set(tmp_path) -> str:
    files = every_state()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "exclusions.csv").write_text("image,reason\nrefused.png,wrong organ\n")
    return put(tmp_path / "set", files, rows_of(files))


def test_every_state_with_real_files(states_set, store):
    found = ingest(states_set, RULES, store, SIDES)
    rows = {name_of(row): row for row in found.table.to_pylist()}
    copies = {name: rows[name]["reason"] for name in ("copied.png", "copied.bmp", "copied-too.png")}
    kept = min(copies, key=lambda name: rows[name]["image_id"])
    assert copies == {name: None if name == kept else "duplicate" for name in copies}
    others = {name: row["reason"] for name, row in rows.items() if name not in copies}
    assert others == {name: state for name, state in STATES.items() if name not in copies}
    others_of = {"dual_view", "not_ultrasound", "no_nodule"}
    assert {row["reason"] for row in rows.values()} - {None} == set(REASONS) - others_of
    for row in rows.values():
        assert row["included"] == (row["reason"] is None) == (row["detail"] is None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused.png", "wrong organ"),
        ("bomb.png", "60000 x 60000 pixels"),
        ("bomb.png", "50000000"),
        ("heavy.bmp", "50000"),
        ("frames.tif", "frames"),
        ("tiny.png", "63 x 63 pixels; each side must have at least min_side = 64"),
        (
            "marked.png",
            "11.11% of the tissue's pixels are coloured; at most overlay_bound = 2% may be",
        ),
        ("blurred.png", "at least blur_bound = 0.1 is expected"),
        ("copy-benign.png", "benign 1, malignant 1"),
        ("near-benign.png", "labelled malignant"),
    ],
)
def test_details_tell_what_was_found_and_asked(name, words, states_set, store):
    table = ingest(states_set, RULES, store, (16,)).table
    (detail,) = [row["detail"] for row in table.to_pylist() if name_of(row) == name]
    assert words in detail


def test_rows_carry_what_was_measured(tmp_path, store):
    pixels = speckle(1)[:70]
    source = put(tmp_path / "set", {"a.png": encode(pixels)}, ["a.png,1,70"], "image,label,age")
    (row,) = ingest(source, RULES, store, (16,)).table.to_pylist()
    assert (row["width"], row["height"], row["label"]) == (72, 70, 1)
    assert row["mean"] == pytest.approx(pixels.mean())
    assert row["sd"] == pytest.approx(pixels.std())
    assert row["overlay_share"] == 0
    assert row["sharpness"] > 0.1
    assert len(row["phash"]) == 16
    assert json.loads(row["attributes"]) == {"age": "70"}
    assert row["patient_id"] is None
    assert row["group_id"] == "g" + row["image_id"][:12]


def test_the_summary_and_notes_say_what_was_excluded(states_set, store):
    found = ingest(states_set, RULES, store, SIDES)
    summary = json.loads(store.read(manifest_key(found.manifest_id)))
    assert summary["included"] == {"benign": 1, "malignant": 1, "unlabelled": 1}
    assert summary["excluded"]["undecodable"] == 5
    assert sum(summary["excluded"].values()) + 3 == summary["images"] == 21
    assert summary["rules"] == RULES.model_dump(mode="json")
    assert summary["sides"] == list(SIDES)
    assert tuple(summary["notes"]) == found.notes
    assert "5 files excluded: undecodable" in found.notes
    assert "2 files excluded: near_duplicate_conflict" in found.notes
    # Both of the only pair are excluded for their labels: nothing that takes part is kept together.
    assert [note for note in found.notes if "kept together" in note] == []
    assert any("no patient ids" in note for note in found.notes)
    assert not found.has_patients


def test_text_and_second_windows_are_noted_and_change_no_id(tmp_path, store):
    window, other = (np.repeat(deep_speckle(seed), 4, axis=1) for seed in (1, 2))
    named = Image.fromarray(np.repeat(deep_speckle(3), 4, axis=1))
    draw = ImageDraw.Draw(named)
    draw.rectangle((0, 0, named.width, 40), 0)
    draw.text((8, 8), "DOE, JANE 1958-04-12", 230, ImageFont.load_default(20))
    files = {
        "dual.png": encode(np.hstack([window, other])),
        "named.png": encode(np.asarray(named)),
        "plain.png": encode(np.repeat(deep_speckle(4), 4, axis=1)),
    }
    source = put(tmp_path / "set", files, ["dual.png,1", "named.png,0", "plain.png,0"])
    found = ingest(source, RULES, store, (16,))
    by_name = {name_of(row): row for row in found.table.to_pylist()}
    assert [by_name[name]["views"] for name in sorted(files)] == [2, 1, 1]
    assert [bool(by_name[name]["text_boxes"]) for name in sorted(files)] == [False, True, False]
    assert all(row["included"] for row in by_name.values())
    (text,) = [
        note
        for note in found.notes
        if "lines that look like text were found in 1 included image:" in note
    ]
    assert "painted over" in text
    (dual,) = [note for note in found.notes if "two windows" in note]
    assert dual.startswith("1 included image with what looks like two windows")
    assert "dual_views" not in RULES.model_dump(), "sets keep the ids that they have"
    strict = ingest(source, RULES.model_copy(update={"dual_views": "exclude"}), store, (16,))
    assert strict.manifest_id != found.manifest_id
    reasons = {name_of(row): row["reason"] for row in strict.table.to_pylist()}
    assert reasons == {"dual.png": "dual_view", "named.png": None, "plain.png": None}


def deep_speckle(seed):
    grain = np.random.default_rng(seed).normal(size=(240, 50))
    return np.clip(gaussian_filter(grain, 0.8) * 80 + 110, 1, 200).astype(np.uint8)


def test_rows_are_sorted_by_image_id_with_missing_files_last(states_set, store):
    rows = ingest(states_set, RULES, store, (16,)).table.select(["image_id", "uri"]).to_pylist()
    ids = [row["image_id"] for row in rows]
    assert ids[:-1] == sorted(ids[:-1])
    assert ids[-1] is None


def test_a_shuffled_listing_gives_the_same_bytes(tmp_path, states_set):
    first, second = (open_store(str(tmp_path / name)) for name in ("one", "two"))
    ingest(states_set, RULES, first, SIDES)
    rows = rows_of(every_state())
    random.Random(1).shuffle(rows)
    put(Path(states_set), {}, rows)
    ingest(states_set, RULES, second, SIDES)
    assert objects(first) == objects(second)


def renamed_files(source: Path) -> None:
    for i, path in enumerate(sorted(source.glob("*.png"), reverse=True)):
        path.rename(source / f"new-{i}.png")
        text = (source / "labels.csv").read_text()
        (source / "labels.csv").write_text(text.replace(path.name, f"new-{i}.png"))


def edited(before: str, after: str):
    def edit(source: Path) -> None:
        text = (source / "labels.csv").read_text()
        assert before in text
        (source / "labels.csv").write_text(text.replace(before, after))

    return edit


def touched(source: Path) -> None:
    for path in source.iterdir():
        os.utime(path, (1, 1))


def moved(source: Path) -> None:
    shutil.copytree(source, source / "x")
    for path in source.glob("*.*"):
        path.unlink()
    for path in (source / "x").iterdir():
        path.rename(source / path.name)
    (source / "x").rmdir()


def other_pixel(source: Path) -> None:
    pixels = np.array(Image.open(source / "a.png"))
    pixels[0, 0] ^= 1
    (source / "a.png").write_bytes(encode(pixels))


@pytest.mark.parametrize(
    "change",
    [
        renamed_files,
        touched,
        moved,
        edited(",x", ",w"),
        edited("0,x\nb", "benign,x\nb"),
    ],
    ids=["file names", "dates", "rewritten", "patient renamed", "spelling of a label"],
)
def test_the_id_does_not_depend_on(change, tmp_path):
    one, two = (Path(small(tmp_path / name)) for name in ("one", "two"))
    change(two)
    first = ingest(str(one), RULES, open_store(str(tmp_path / "s1")), (16,))
    second = ingest(str(two), RULES, open_store(str(tmp_path / "s2")), (16,))
    assert first.manifest_id == second.manifest_id
    assert first.table.drop_columns("uri") == second.table.drop_columns("uri")


@pytest.mark.parametrize(
    "change",
    [
        other_pixel,
        edited("a.png,0", "a.png,1"),
        edited("a.png,0", "a.png,"),
        edited("a.png,0,x", "a.png,0,y"),
        edited("a.png,0,x", "a.png,0,"),
        lambda source: (source / "a.png").unlink(),
        lambda source: (source / "e.png").write_bytes(encode(speckle(99))),
        lambda source: (source / "exclusions.csv").write_text("image,reason\na.png,no\n"),
        edited("d.png,1,z", "d.png,1,z\nd.png,0,z"),
    ],
    ids=[
        "pixel", "label", "no label", "patients", "no patient", "gone", "not listed", "refused",
        "twice",
    ],
)  # fmt: skip
def test_the_id_depends_on(change, tmp_path, store):
    before = ingest(small(tmp_path / "set"), RULES, store, (16,)).manifest_id
    change(tmp_path / "set")
    assert ingest(str(tmp_path / "set"), RULES, store, (16,)).manifest_id != before


def test_the_id_depends_on_the_rules_of_ingest_only(tmp_path, store):
    source = small(tmp_path / "set")
    plain = ingest(source, RULES, store, (16,)).manifest_id
    study = StudyConfig(**RULES.model_dump(), epochs=3)
    assert ingest(source, study, store, (16,)).manifest_id == plain
    stricter = RULES.model_copy(update={"min_side": 65})
    assert ingest(source, stricter, store, (16,)).manifest_id != plain


@pytest.mark.parametrize("change", [edited("a.png,0\n", ""), edited("a.png,0", "a.png,0\na.png,1")])
def test_the_id_tells_unlabelled_from_unlisted_and_from_labelled_twice(change, tmp_path, store):
    files = {f"{name}.png": encode(speckle(ord(name))) for name in "ab"}
    source = put(tmp_path / "set", files, ["a.png,0", "b.png,1"])
    change(tmp_path / "set")
    before = ingest(source, RULES, store, (16,)).manifest_id
    put(tmp_path / "set", {}, ["a.png,", "b.png,1"])
    assert ingest(source, RULES, store, (16,)).manifest_id != before


def test_the_name_of_a_mask_does_not_count_but_other_columns_do(tmp_path, store):
    files = {"a.png": encode(speckle(1))}
    names = [
        ingest(
            put(tmp_path, files, [row], "image,label,Mask,probe"), RULES, store, (16,)
        ).manifest_id
        for row in (
            "a.png,1,masks/a.png,linear",
            "a.png,1,m/1.png,linear",
            "a.png,1,m/1.png,convex",
        )
    ]
    assert names[0] == names[1] != names[2]


def test_the_same_bytes_in_another_shape_are_other_pixels(tmp_path, store):
    pixels = speckle(1)[:70]
    turned = pixels.reshape(72, 70)
    files = {"a.png": encode(pixels), "b.png": encode(turned)}
    source = put(tmp_path / "set", files, ["a.png,1", "b.png,1"])
    assert ingest(source, RULES, store, (16,)).table["included"].to_pylist() == [True, True]


def test_a_file_that_is_not_listed_is_not_decoded(states_set, store):
    table = ingest(states_set, RULES, store, (16,)).table
    (stray,) = [row for row in table.to_pylist() if name_of(row) == "stray.png"]
    assert stray["image_id"] is not None
    assert stray["width"] is None
    assert stray["phash"] is None


def test_a_missing_file_counts_by_its_name(tmp_path, store):
    source = small(tmp_path / "set")
    edited("a.png", "gone.png")(tmp_path / "set")
    before = ingest(source, RULES, store, (16,)).manifest_id
    edited("gone.png", "lost.png")(tmp_path / "set")
    assert ingest(source, RULES, store, (16,)).manifest_id != before


def test_a_second_ingest_decodes_nothing_even_from_elsewhere(tmp_path, store, stopped_decoding):
    first = ingest(small(tmp_path / "one"), RULES, store, SIDES)
    kept = objects(store)
    stopped_decoding()
    assert ingest(small(tmp_path / "two"), RULES, store, SIDES) == first
    assert load_manifest(store, first.manifest_id) == first
    assert objects(store) == kept


def test_a_second_ingest_notes_what_is_true_of_its_own_run(tmp_path, store):
    """The same contents, and so the same manifest; not the same names, labels and other files."""
    files = {"a.png": encode(speckle(1)), "b.png": encode(speckle(2)), "cut.png": b"\x89PNG"}
    rows = ["a.png,B", "b.png,M", "cut.png,M"]
    source = put(tmp_path / "set", files, rows)
    (tmp_path / "set" / "notes.doc").write_bytes(b"x")
    first = ingest(source, RULES, store, (16,))
    (tmp_path / "set" / "notes.doc").unlink()
    rows = [row.replace(",B", ",benign,Anna").replace(",M", ",malignant,Ewa") for row in rows]
    put(tmp_path / "set", files, rows, header="image,label,name")
    second = ingest(source, RULES, store, (16,))
    assert second.manifest_id == first.manifest_id
    assert (first.table, load_manifest(store, first.manifest_id)) == (second.table, first)
    gone, new = set(first.notes) - set(second.notes), set(second.notes) - set(first.notes)
    assert any("files not taken as images" in note for note in gone)
    assert any("identifying columns dropped: name" in note for note in new)
    excluded = [note for note in second.notes if "excluded: undecodable" in note]
    assert len(excluded) == 1, "what is noted of the contents stays"


def test_notes_of_an_earlier_version_are_said_to_be_of_their_day(tmp_path, store):
    first = ingest(small(tmp_path / "set"), RULES, store, (16,))
    key = manifest_key(first.manifest_id)
    summary = json.loads(store.read(key))
    del summary["content_notes"]
    store.write(key, json.dumps(summary).encode())
    note, *others = ingest(small(tmp_path / "set"), RULES, store, (16,)).notes
    assert "may no longer hold" in note
    assert tuple(others) == first.notes


def test_a_new_side_adds_its_pack_from_where_the_files_are_now(tmp_path, store):
    first = ingest(small(tmp_path / "one"), RULES, store, (16,))
    shutil.rmtree(tmp_path / "one")
    second = ingest(small(tmp_path / "two"), RULES, store, (16, 20))
    assert second == first
    whole = open_store("memory://other-side")
    ingest(str(tmp_path / "two"), RULES, whole, (20,))
    key = pack_key(first.manifest_id, 20)
    assert store.read(key) == whole.read(key)


@pytest.mark.parametrize(
    ("place", "name"),
    [("thyro_core.datasets.manifest", "write_table"), ("thyro_core.store.store.Store", "write")],
)
def test_a_kill_before_the_end_leaves_a_state_to_resume(place, name, tmp_path, store, monkeypatch):
    source = small(tmp_path / "set")

    def die(*args: object, **keys: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", die)
        with pytest.raises(KeyboardInterrupt):
            ingest(source, RULES, store, SIDES)
    (manifest_id,) = {key.split("/")[1] for key in store.keys("packs")}
    assert len(store.keys("packs")) == 2
    with pytest.raises(InputError, match=manifest_id):
        load_manifest(store, manifest_id)
    whole = open_store(str(tmp_path / "whole"))
    assert ingest(source, RULES, store, SIDES) == ingest(source, RULES, whole, SIDES)
    assert objects(store) == objects(whole)


def test_memory_source_and_store(tmp_path):
    fs = fsspec.filesystem("memory")
    fs.put(small(tmp_path / "set") + "/", "/a-set/", recursive=True)
    remote = ingest("memory://a-set", RULES, open_store("memory://a-store"), SIDES)
    local = ingest(str(tmp_path / "set"), RULES, open_store(str(tmp_path / "s")), SIDES)
    assert remote.manifest_id == local.manifest_id
    assert remote.table.drop_columns("uri") == local.table.drop_columns("uri")
    for side in SIDES:
        key = pack_key(remote.manifest_id, side)
        assert open_store("memory://a-store").read(key) == (tmp_path / "s" / key).read_bytes()


def test_packs_hold_the_resized_included_images(states_set, store, tmp_path):
    table = ingest(states_set, RULES, store, SIDES).table
    index = packs.pack_index(table)
    included = {row["image_id"]: row["uri"] for row in table.to_pylist() if row["included"]}
    assert list(index) == sorted(included)
    for side in SIDES:
        pack = packs.open_pack(store, table["manifest_id"][0].as_py(), side, tmp_path, len(index))
        for image_id, uri in included.items():
            data = Path(uri.removeprefix("file://")).read_bytes()
            expected = decode.resize(decode.decode(data, RULES).grey, side)
            np.testing.assert_array_equal(pack[index[image_id]], expected)


def test_nothing_personal_reaches_the_store(tmp_path, store, caplog):
    files = {f"{name}.png": encode(speckle(ord(name))) for name in "abc"}
    files["b.png"] = b"broken"
    rows = [f"{name},{i % 2},SENTINEL-77,SURNAME-88,kept-99" for i, name in enumerate(files)]
    source = put(tmp_path / "set", files, rows, "image,label,patient_id,surname,probe")
    found = ingest(source, RULES, store, SIDES)
    assert found.has_patients
    told = repr(found) + repr(found.table.to_pylist()) + caplog.text
    assert "kept-99" in told
    everything = told.encode() + b"".join(objects(store).values())
    for secret in (b"SENTINEL-77", b"SURNAME-88"):
        assert secret not in everything
    ids = [row["image_id"] for row in found.table.to_pylist()]
    assert set(found.table["patient_id"].to_pylist()) == {"p" + min(ids)[:12]}


def test_shared_images_join_patients_and_are_noted(tmp_path, store):
    small(tmp_path / "set", "ab", "xy")
    (tmp_path / "set" / "c.bmp").write_bytes(encode(speckle(ord("a")), "BMP"))
    edited("b.png,1,y", "b.png,1,y\nc.bmp,0,y")(tmp_path / "set")
    found = ingest(str(tmp_path / "set"), RULES, store, (16,))
    assert len(set(found.table["group_id"].to_pylist())) == 1
    assert "1 image listed under several patients: these are one group" in found.notes


def test_a_kept_copy_of_a_refused_image_is_noted(tmp_path, store):
    source = small(tmp_path / "set", "ab", "xy")
    (tmp_path / "set" / "c.bmp").write_bytes(encode(speckle(ord("a")), "BMP"))
    edited("b.png,1,y", "b.png,1,y\nc.bmp,0,x")(tmp_path / "set")
    (tmp_path / "set" / "exclusions.csv").write_text("image,reason\na.png,\n")
    found = ingest(source, RULES, store, (16,))
    assert "1 included image with an exact copy that the specialist excluded" in found.notes


@pytest.fixture
def failing_reads(monkeypatch):
    """Let reads of some files fail, by name: how often; returns the tries made."""
    tries: dict[str, int] = {}

    def fail(times: dict[str, int]) -> dict[str, int]:
        monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.0)
        original = LocalFileSystem._open

        def flaky(self, path, *args, **keys):
            name = Path(path).name
            tries[name] = tries.get(name, 0) + 1
            if tries[name] <= times.get(name, 0):
                raise PermissionError(13, "refused", path)
            return original(self, path, *args, **keys)

        monkeypatch.setattr(LocalFileSystem, "_open", flaky)
        return tries

    return fail


def test_a_file_that_cannot_be_read_is_undecodable_after_three_tries(
    tmp_path, store, failing_reads
):
    tries = failing_reads({"a.png": 999})
    table = ingest(small(tmp_path / "set"), RULES, store, (16,)).table
    (row,) = [row for row in table.to_pylist() if not row["included"]]
    assert tries["a.png"] == 3
    assert name_of(row) == "a.png"
    assert row["image_id"] is None
    assert (row["reason"], row["detail"]) == (
        "undecodable",
        "unreadable, 3 tries: Permission denied; check its permissions, there or at the store",
    )


def test_a_passing_failure_changes_nothing(tmp_path, store, failing_reads):
    before = ingest(small(tmp_path / "set"), RULES, open_store("memory://calm"), (16,))
    failing_reads({"a.png": 2, "b.png": 1})
    assert ingest(str(tmp_path / "set"), RULES, store, (16,)) == before


def test_a_source_of_which_nothing_can_be_read_is_an_error(tmp_path, store, failing_reads):
    failing_reads({f"{name}.png": 999 for name in "abcd"})
    with pytest.raises(InputError, match=r"none of 4 files could be read.*permissions"):
        ingest(small(tmp_path / "set"), RULES, store, (16,))
    assert store.keys("") == []


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, store, monkeypatch):
    source = small(tmp_path / "set")
    name_it = manifest._manifest_id

    def change_then_name(*args):
        other_pixel(tmp_path / "set")
        return name_it(*args)

    monkeypatch.setattr(manifest, "_manifest_id", change_then_name)
    with pytest.raises(InputError, match=r"a\.png: expected the file .* found other contents"):
        ingest(source, RULES, store, (16,))
    assert store.keys("") == []


def test_a_set_without_a_usable_image_still_has_its_manifest(tmp_path, store):
    source = put(tmp_path / "set", {"a.png": b"broken"}, ["a.png,1"])
    found = ingest(source, RULES, store, (16,))
    assert found.table["reason"].to_pylist() == ["undecodable"]
    assert packs.open_pack(store, found.manifest_id, 16, tmp_path, 0).shape == (0, 16, 16)


def test_progress_counts_every_file_once(tmp_path, store):
    told: list[tuple[int, int]] = []
    ingest(small(tmp_path / "set"), RULES, store, (16,), lambda *counts: told.append(counts))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_unknown_manifest_is_an_input_error(store):
    with pytest.raises(InputError, match=r"expected manifest m123, found none; ingest"):
        load_manifest(store, "m123")


KINDS = {
    "good": encode(speckle(50)),
    "copy": encode(speckle(50), "BMP"),
    "other": encode(speckle(51)),
    "near": encode((speckle(51) * 0.9 + 12).astype(np.uint8)),
    "tiny": encode(speckle(52, 20)),
    "marked": encode(marked(53)),
    "broken": b"BMnothing",
}
listings = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, None]),
        st.sampled_from(["0", "1", "", "0/1", None]),
        st.sampled_from(["", "x", "y"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(listings)
def test_every_file_ends_in_exactly_one_state(listing):
    fs = fsspec.filesystem("memory")
    for folder in ("/gen", "/gen-store"):
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
    listing = [*listing, ("good", "0", "", False)]
    rows, refused, expected = ["image,label,patient_id"], ["image,reason"], set()
    for i, (kind, label, patient, exclude) in enumerate(listing):
        name = f"{i}.png"
        if kind is not None:
            fs.pipe(f"/gen/{name}", KINDS[kind])
        if label is not None:
            rows += [f"{name},{one},{patient}" for one in label.split("/")]
        if kind is not None or label is not None:
            expected.add(name)
        if exclude:
            refused.append(f"{name},")
    fs.pipe("/gen/labels.csv", "\n".join(rows).encode())
    fs.pipe("/gen/exclusions.csv", "\n".join(refused).encode())
    table = ingest("memory://gen", RULES, open_store("memory://gen-store"), (16,)).table
    found = table.to_pylist()
    assert sorted(name_of(row) for row in found) == sorted(expected)
    for row in found:
        assert row["included"] == (row["reason"] is None)
        assert row["included"] or row["reason"] in REASONS
    kept = [row["pixel_hash"] for row in found if row["included"]]
    assert len(kept) == len(set(kept))
    assert list(packs.pack_index(table)) == sorted(r["image_id"] for r in found if r["included"])
