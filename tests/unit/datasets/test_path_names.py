"""Paths that tell of people: how they are recognised, and a manifest that goes without them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from thyro_core.config import IngestConfig
from thyro_core.datasets import hidden_paths, path_names
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.datasets.packs import ensure_packs, open_pack
from thyro_core.errors import InputError
from thyro_core.pseudonyms import Pseudonymiser, path_hider
from thyro_core.settings import Settings
from thyro_core.store.store import Store, open_store
from thyro_core.study.verify import object_checks

RULES = IngestConfig(blur_bound=0.1)
KEY = SecretStr("correct horse battery staple")
NAMES = ("Doe_Jane", "DOE^JOHN", "scan-19610512", "MRN 0012345")


@pytest.mark.parametrize(
    "path",
    ["Doe_Jane.png", "DOE^JANE.dcm", "images/JaneDoe.png", "jane doe/1.png", "Müller-Ökan 2.png"],
)
def test_a_name_is_recognised(path):
    assert path_names.holds_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "malignant/0001.jpg", "benign (12).png", "benign (12)_mask.png", "trainval-image/0007.jpg",
        "1_1.jpg", "left_lobe_long_2.png", "IM_0001.dcm",
        "Thyroid Ultrasound Images/test/p000123.png", "a_b_c.png", "image-b.png",
    ],
)  # fmt: skip
def test_names_of_image_sets_are_nobody_s(path):
    assert path_names.path_notes([path]) == []


def test_a_uid_is_no_date_and_leads_to_an_exam() -> None:
    (note,) = path_names.path_notes(["US.1.2.840.113619.2.55.3.19610512", "a.png"])
    assert note.startswith("of 2 paths, 1 hold a UID of DICOM, judged by their form alone")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("scan-19610512.png", True), ("1961-05-12/1.png", True), ("12.05.1961 a.png", True),
        ("196105123.png", False), ("19611305.png", False), ("1.2.840.19610512.3.png", False),
    ],
)  # fmt: skip
def test_a_date_is_a_whole_day(path, is_one):
    assert path_names.holds_date(path) is is_one


@pytest.mark.parametrize(
    ("path", "is_one"),
    [("MRN 0012345.png", True), ("patient_12345/a.png", True), ("pat_12.png", False),
     ("00012345.png", False)],
)  # fmt: skip
def test_a_medical_id_follows_its_word(path, is_one):
    assert path_names.holds_medical_id(path) is is_one


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        noise = rng.integers(1, 255, (80, 80), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    rows = [f"{name}.png,{i % 2},masks of {name}.png" for i, name in enumerate(NAMES)]
    rows.append("Roe_Richard.png,1,")
    (folder / "labels.csv").write_text("\n".join(["image,label,mask", *rows]) + "\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def everything(store: Store) -> bytes:
    return b"\n".join(store.read(key) for key in store.keys(""))


def _uris(manifest: Manifest) -> list[str | None]:
    return manifest.table["uri"].to_pylist()


def test_an_ingest_counts_what_looks_like_a_person_and_names_nobody(source, store):
    manifest = ingest(str(source), RULES, store, (16,))
    (note,) = [note for note in manifest.notes if "paths" in note]
    assert note.startswith(
        "of 5 paths, 3 may hold a person's name, 1 may hold a date (of birth, or of an "
        "examination), 1 may hold a medical id, judged by their form alone"
    )
    assert "THYRO_KEEP_NAMES=false" in note
    assert not any(word in note for name in NAMES for word in name.split("_"))


def test_a_manifest_without_paths_has_the_same_id_and_nothing_of_them(source, store, tmp_path):
    plain = ingest(str(source), RULES, open_store(str(tmp_path / "plain")), (16,))
    hidden = ingest(str(source), RULES, store, (16,), hide_path=Pseudonymiser(KEY).of_path)
    assert hidden.manifest_id == plain.manifest_id
    assert _uris(hidden) != _uris(plain)
    assert all(uri.startswith("q") and len(uri) == 33 for uri in _uris(hidden))
    assert len(set(_uris(hidden))) == 5
    assert not any(name.encode() in everything(store) for name in (*NAMES, "Roe_Richard"))
    assert hidden_paths.HIDDEN_NOTE in hidden.notes
    # The same key, the same word, in another store.
    again = ingest(
        str(source),
        RULES,
        open_store(str(tmp_path / "b")),
        (16,),
        hide_path=Pseudonymiser(KEY).of_path,
    )
    assert again.table.equals(hidden.table)
    other = Pseudonymiser(SecretStr(KEY.get_secret_value() + "!")).of_path
    assert other("file:///a.png") != Pseudonymiser(KEY).of_path("file:///a.png")


def test_without_a_key_a_path_is_null(source, store):
    hidden = ingest(str(source), RULES, store, (16,), hide_path=Pseudonymiser(None).of_path)
    assert _uris(hidden) == [None] * 5
    assert not any(name.encode() in everything(store) for name in NAMES)


def test_paths_of_an_earlier_ingest_are_taken_out(source, store, tmp_path):
    first = ingest(str(source), RULES, store, (16,))
    hide = Pseudonymiser(KEY).of_path
    second = ingest(str(source), RULES, store, (16,), hide_path=hide)
    fresh = ingest(str(source), RULES, open_store(str(tmp_path / "b")), (16,), hide_path=hide)
    assert second.manifest_id == first.manifest_id
    assert second.table.equals(fresh.table)
    assert hidden_paths.HIDDEN_NOTE in second.notes
    assert not any(path_names.NOTE_MARK in note for note in second.notes)
    assert not any(name.encode() in everything(store) for name in NAMES)
    # They stay out, whoever ingests next.
    assert ingest(str(source), RULES, store, (16,)).table.equals(second.table)


def test_packs_of_a_manifest_without_paths_are_made_by_its_ingest_alone(source, store):
    hide = Pseudonymiser(KEY).of_path
    manifest = ingest(str(source), RULES, store, (16,), hide_path=hide)
    with pytest.raises(InputError, match=r"side 24, found no paths .*ingest the image set again"):
        ensure_packs(store, manifest.table, RULES, (16, 24))
    ingest(str(source), RULES, store, (16, 24), hide_path=hide)
    scratch = Path(store.url.removeprefix("file://")) / "scratch"
    assert open_pack(store, manifest.manifest_id, 24, scratch, 4).shape == (4, 24, 24)


def test_no_pseudonym_is_opened_as_a_file(source, store, tmp_path, monkeypatch):
    """A file of the working folder may be called like one."""
    manifest = ingest(str(source), RULES, store, (16,), hide_path=Pseudonymiser(KEY).of_path)
    for uri in _uris(manifest):
        (tmp_path / uri).write_bytes(b"other bytes")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(source)
    assert object_checks.changed_images(manifest.table) == ([], 4)
    assert object_checks.sample_images(manifest.table, RULES) == {}
    assert "5 files, whose paths are not recorded" in object_checks.reach_summary(manifest.table, 4)


def test_the_setting_hides_paths_only_when_it_says_false(monkeypatch):
    for value in ("", "true"):
        monkeypatch.setenv("THYRO_KEEP_NAMES", value) if value else None
        assert path_hider(Settings()) is None
    monkeypatch.setenv("THYRO_KEEP_NAMES", "false")
    assert path_hider(Settings())("file:///set/Doe_Jane.png") is None
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", KEY.get_secret_value())
    pseudonym = path_hider(Settings())("file:///set/Doe_Jane.png")
    assert pseudonym == Pseudonymiser(KEY).of_path("file:///set/Doe_Jane.png")
    assert pseudonym != Pseudonymiser(KEY)("file:///set/Doe_Jane.png")
    assert json.dumps(pseudonym).isascii()
