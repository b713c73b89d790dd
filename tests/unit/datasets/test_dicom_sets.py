"""Image sets of DICOM: labels by identifiers, groups by headers, pictures as in a screening."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.support import deadly_reader
from tests.support.dicoms import PERSON, dicom, region, speckle
from thyro_core.config import IngestConfig
from thyro_core.datasets import dicom_files, file_pictures
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.imaging import sandbox
from thyro_core.imaging.decode import resize
from thyro_core.imaging.dicom_header import read_header
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import read_screening_images
from thyro_core.store.keys import manifest_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.verify.object_checks import changed_images, pack_faults, sample_images

RULES = IngestConfig()
UID = "1.2.840.113619.77"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
CT = "1.2.840.10008.5.1.4.1.1.2"


def us(seed: int, exam: int, patient: str | None = None, **elements: Any) -> bytes:
    """An object of an exam; each exam is of a patient of its own, if none is named."""
    values = {
        "SOPInstanceUID": f"{UID}.1.{seed}",
        "StudyInstanceUID": f"{UID}.2.{exam}",
        "AccessionNumber": f"ACC-{exam}",
        "PatientID": f"MRN-{exam}" if patient is None else patient,
        "IssuerOfPatientID": "",
    }
    pixels = elements.pop("pixels", None)
    return dicom(speckle(seed=seed) if pixels is None else pixels, **(values | elements))


def clip(seed: int, n: int = 20) -> np.ndarray:
    return np.stack([speckle(seed=1000 * seed + frame) for frame in range(n)])


def two_windows() -> np.ndarray:
    """Speckle as a scanner's, wider than it is deep, left and right of a gutter."""
    left, right = (np.repeat(speckle(480, 50, seed), 4, axis=1) for seed in (1, 2))
    return np.concatenate([left, np.zeros((480, 20), np.uint8), right], axis=1)


def make_set(folder: Path, files: dict[str, bytes], csv: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "labels.csv").write_text(csv)
    return folder


class PoolHere:
    """Stands for the decoders' processes, each of which takes seconds to start."""

    def __init__(self, read: Callable[[bytes], Any], size: int) -> None:
        self._read, self.size = read, size

    def __call__(self, data: bytes) -> Any:
        return self._read(data)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _decode_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "kills_its_decoder" not in request.node.name:
        monkeypatch.setattr(file_pictures, "DecoderPool", PoolHere)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def read(store: Store, folder: Path | str, **rules: Any) -> Manifest:
    return ingest(str(folder), IngestConfig(**rules), store, (32,))


def rows_of(manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, by its name, in order of frames and views."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in manifest.table.to_pylist():
        rows.setdefault(row["uri"].rpartition("/")[2], []).append(row)
    for pictures in rows.values():
        pictures.sort(key=lambda row: (row["frame"] or 0, row["view"] or 0))
    return rows


def labels_of(manifest: Manifest) -> dict[str, int | None]:
    return {name: rows[0]["label"] for name, rows in rows_of(manifest).items()}


FILES = {"IM1": us(1, 1), "IM2": us(2, 1), "sub/IM3.dcm": us(3, 2), f"US.{UID}.1.4": us(4, 3)}
LABELS = {"IM1": 0, "IM2": 0, "IM3.dcm": 1, f"US.{UID}.1.4": 0}


@pytest.mark.parametrize(
    "csv",
    [
        f"SOPInstanceUID,label\n{UID}.1.1,0\n{UID}.1.2,0\n{UID}.1.3,1\n{UID}.1.4,0\n",
        f"study_instance_uid;label\n{UID}.2.1;0\n{UID}.2.2;1\n{UID}.2.3;0\n",
        "Accession Number,label\nACC-1,benign\nACC-2,malignant\nACC-3,benign\n",
        f"image,label\nIM1,B\nim2.dcm,B\nIM3.dcm,M\nUS.{UID}.1.4,B\n",
        f"image,label\nACC-1,0\nsub/IM3.dcm,1\n{UID}.1.4,0\n",
    ],
)
def test_labels_name_objects_by_identifiers_or_files(tmp_path, store, csv: str) -> None:
    manifest = read(store, make_set(tmp_path / "set", FILES, csv))
    assert labels_of(manifest) == LABELS
    assert all(manifest.table["included"].to_pylist())


def test_folders_are_labels_of_objects_too(tmp_path, store) -> None:
    folder = tmp_path / "set"
    for name, data in {"benign/a": us(1, 1), "malignant/b.dcm": us(2, 2)}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(data)
    assert labels_of(read(store, folder)) == {"a": 0, "b.dcm": 1}


def test_an_object_is_excluded_by_an_identifier(tmp_path, store) -> None:
    csv = "AccessionNumber,label\nACC-1,0\nACC-2,1\nACC-3,0\n"
    folder = make_set(tmp_path / "set", FILES, csv)
    (folder / "exclusions.csv").write_text(f"SOPInstanceUID,reason\n{UID}.1.3,collar\n{UID}.9,x\n")
    manifest = read(store, folder)
    reasons = {name: rows[0]["detail"] for name, rows in rows_of(manifest).items()}
    assert reasons == dict.fromkeys(LABELS) | {"IM3.dcm": "collar"}
    assert "exclusions.csv names images that the set lacks, in line 3" in manifest.notes


def test_an_identifier_of_two_patients_labels_nobody(tmp_path, store) -> None:
    files = {"a": us(1, 1), "b": us(2, 2, AccessionNumber="ACC-1"), "c": us(3, 3)}
    csv = "AccessionNumber,label\nACC-3,1\nACC-1,0\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    assert {name: rows[0]["reason"] for name, rows in rows_of(manifest).items()} == {
        "a": "not_listed",
        "b": "not_listed",
        "c": None,
    }
    said = "1 row of labels.csv set aside: files of several patients bear the identifier in line 3"
    assert said in manifest.notes


def test_a_cell_of_an_identifier_column_is_no_file_name(tmp_path, store) -> None:
    """Two files, each named by the accession number of the other."""
    files = {
        "1001.dcm": us(1, 1, AccessionNumber="1002"),
        "1002.dcm": us(2, 2, AccessionNumber="1001"),
        "IM3": us(3, 3),
    }
    csv = "AccessionNumber,label\n1001,0\n1002,1\nIM3,1\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    assert labels_of(manifest) == {"1001.dcm": 1, "1002.dcm": 0, "IM3": None}
    assert (
        "1 row of labels.csv set aside: no DICOM file bears the identifier, which is a file's "
        "name, in line 4"
    ) in manifest.notes


def test_a_cell_that_means_two_files_in_two_ways_labels_neither(tmp_path, store) -> None:
    files = {
        "1001.dcm": us(1, 1, AccessionNumber="1002"),
        "1002.dcm": us(2, 2, AccessionNumber="1001"),
        "1003.dcm": us(3, 3, AccessionNumber="1003"),
    }
    folder = make_set(tmp_path / "set", files, "image,label\n1001,0\n1002.dcm,1\n1003,1\n")
    manifest = read(store, folder)
    assert labels_of(manifest) == {"1001.dcm": None, "1002.dcm": 1, "1003.dcm": 1}
    assert (
        "1 row of labels.csv set aside: a file bears the name and DICOM files of other names bear "
        "the identifier in line 2"
    ) in manifest.notes


def test_exported_pictures_may_be_named_by_identifiers(tmp_path, store) -> None:
    folder = make_set(tmp_path / "set", {}, f"SOPInstanceUID,label\n{UID}.1,0\n{UID}.2,1\n")
    for i in (1, 2):
        Image.fromarray(speckle(seed=i)).save(folder / f"{UID}.{i}.png")
    assert labels_of(read(store, folder)) == {f"{UID}.1.png": 0, f"{UID}.2.png": 1}


@pytest.mark.parametrize("patient", ["", "ANONYMOUS"])
def test_an_accession_number_of_several_exams_of_nobody_labels_nobody(
    tmp_path, store, patient: str
) -> None:
    files = {
        "a": us(1, 1, patient=patient),
        "b": us(2, 2, patient=patient, AccessionNumber="ACC-1"),
        "c": us(3, 3, patient="MRN-3"),
        "d": us(4, 4, patient="MRN-3", AccessionNumber="ACC-3"),
    }
    csv = "AccessionNumber,label\nACC-1,0\nACC-3,1\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    assert labels_of(manifest) == {"a": None, "b": None, "c": 1, "d": 1}
    assert (
        "1 row of labels.csv set aside: files of several exams, not all of a known patient, bear "
        "the identifier in line 2"
    ) in manifest.notes


@pytest.mark.parametrize(
    ("csv", "names", "reason"),
    [
        ("AccessionNumber,reason\nACC-1,x\n", {"a", "b"}, "files of several patients bear the"),
        ("AccessionNumber,reason\nACC-3,x\n", {"c", "d"}, "files of several exams, not all of a"),
        ("AccessionNumber,reason\ne,x\n", {"f"}, None),
        ("image,reason\ne,x\n", {"e.dcm", "f"}, "a file bears the name and DICOM files of other"),
    ],
)
def test_an_ambiguous_exclusion_is_of_all_that_may_be_meant(
    tmp_path, store, csv: str, names: set[str], reason: str | None
) -> None:
    files = {
        "a": us(1, 1, AccessionNumber="ACC-1"),
        "b": us(2, 2, AccessionNumber="ACC-1"),
        "c": us(3, 3, patient="", AccessionNumber="ACC-3"),
        "d": us(4, 4, patient="", AccessionNumber="ACC-3"),
        "e.dcm": us(5, 5),
        "f": us(6, 6, AccessionNumber="e"),
    }
    labels = "image,label\na,0\nb,1\nc,0\nd,1\ne.dcm,0\nf,1\n"
    folder = make_set(tmp_path / "set", files, labels)
    (folder / "exclusions.csv").write_text(csv)
    manifest = read(store, folder)
    reasons = {name: rows[0]["reason"] for name, rows in rows_of(manifest).items()}
    excluded = {name for name, why in reasons.items() if why == "excluded_by_specialist"}
    assert excluded == names
    doubt = "1 row of exclusions.csv taken for all files that may be meant: "
    doubts = [note.removeprefix(doubt) for note in manifest.notes if doubt in note]
    assert len(doubts) == (reason is not None)
    assert all(note.startswith(reason or "") and note.endswith(" in line 2") for note in doubts)
    assert not any("names images that the set lacks" in note for note in manifest.notes)


def test_pictures_are_those_of_a_screening(tmp_path, store) -> None:
    """Clips, regions and seams: the same images under the same ids, pixel by pixel."""
    dual = two_windows()
    boxes = [region(1, 1, (0, 0, 79, 95)), region(1, 1, (80, 0, 159, 95))]
    files = {
        "clip": us(1, 1, pixels=clip(1)),
        "dual": us(2, 2, pixels=dual),
        "regions": us(3, 3, pixels=speckle(96, 160, 5), SequenceOfUltrasoundRegions=boxes),
        "cut": us(4, 4, SequenceOfUltrasoundRegions=[region(1, 1, (10, 8, 109, 90))]),
    }
    csv = "image,label\nclip,0\ndual,1\nregions,0\ncut,1\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    pack = open_pack(store, manifest.manifest_id, 32, tmp_path, len(pack_index(manifest.table)))
    places, rows = pack_index(manifest.table), rows_of(manifest)
    counts = {}
    for name, data in files.items():
        images = read_screening_images(data, ScreeningRules(), lambda *_: None)
        assert [row["image_id"] for row in rows[name]] == [image.image_id for image in images]
        for image in images:
            assert image.grey is not None
            np.testing.assert_array_equal(pack[places[image.image_id]], resize(image.grey, 32))
        counts[name] = len(images)
        assert len({row["group_id"] for row in rows[name]}) == 1
        assert len({row["file_id"] for row in rows[name]}) == 1
    assert counts == {"clip": 8, "dual": 2, "regions": 2, "cut": 1}
    assert [row["frame"] for row in rows["clip"]] == [1, 3, 6, 8, 11, 13, 16, 18]
    assert len({name[0]["group_id"] for name in rows.values()}) == 4
    parted = "4 included images, each a window of a DICOM picture of several, under that picture's"
    assert any(note.startswith(parted) for note in manifest.notes)


def test_of_a_clip_as_many_frames_take_part_as_declared(tmp_path, store) -> None:
    folder = make_set(
        tmp_path / "set", {"c": us(1, 1, pixels=clip(1)), "d": us(2, 2)}, "image,label\nc,0\nd,1\n"
    )
    assert len(rows_of(read(store, folder, frames_per_clip=3))["c"]) == 3
    refused = rows_of(read(store, folder, max_clip_frames=19))["c"]
    assert [(row["reason"], row["detail"]) for row in refused] == [
        ("undecodable", "20 frames, more than max_clip_frames = 19")
    ]


def test_pictures_of_two_windows_are_left_out_on_demand(tmp_path, store) -> None:
    dual = two_windows()
    boxes = [region(1, 1, (0, 0, 79, 95)), region(1, 1, (80, 0, 159, 95))]
    files = {
        "a": us(2, 2, pixels=dual),
        "b": us(3, 3, pixels=speckle(96, 160, 5), SequenceOfUltrasoundRegions=boxes),
        "c": us(4, 4),
    }
    folder = make_set(tmp_path / "set", files, "image,label\na,1\nb,0\nc,0\n")
    rows = rows_of(read(store, folder, dual_views="exclude"))
    assert {name: {row["reason"] for row in some} for name, some in rows.items()} == {
        "a": {"dual_view"},
        "b": {"dual_view"},
        "c": {None},
    }


def groups(manifest: Manifest) -> dict[str, str]:
    return {name: rows[0]["group_id"] for name, rows in rows_of(manifest).items()}


def test_groups_are_of_patients_and_of_exams(tmp_path, store) -> None:
    files = {
        "a": us(1, 1, patient="MRN-7", IssuerOfPatientID="here"),
        "same patient": us(2, 2, patient=" mrn-7 ", IssuerOfPatientID="Here"),
        "other issuer": us(3, 3, patient="MRN-7", IssuerOfPatientID="elsewhere"),
        "exam alone": us(4, 4, patient=""),
        "exam again": us(5, 4, patient=""),
        "nobody": us(6, 5, patient=""),
        "deflated": us(
            7,
            6,
            patient="MRN-7",
            IssuerOfPatientID="here",
            syntax=DeflatedExplicitVRLittleEndian,
        ),
    }
    csv = "image,label\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(files))
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    of = groups(manifest)
    assert of["a"] == of["same patient"] == of["deflated"]
    assert of["exam alone"] == of["exam again"]
    assert len(set(of.values())) == 4
    patients = {name: rows[0]["patient_id"] for name, rows in rows_of(manifest).items()}
    assert patients["a"] == patients["same patient"] != patients["other issuer"]
    assert patients["exam alone"] is patients["nobody"] is None
    assert manifest.has_patients


def test_an_id_without_its_issuer_in_one_file_is_one_patient(tmp_path, store) -> None:
    files = {
        "a": us(1, 1, patient="MRN-7", IssuerOfPatientID="here"),
        "b": us(2, 2, patient="MRN-7", AccessionNumber="ACC-1"),
        "c": us(3, 3, patient="MRN-8", IssuerOfPatientID="here"),
    }
    csv = "AccessionNumber,label\nACC-1,0\nACC-3,1\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    assert labels_of(manifest) == {"a": 0, "b": 0, "c": 1}
    of = groups(manifest)
    assert of["a"] == of["b"] != of["c"]


@pytest.mark.parametrize("issuer", ["", "here"])
def test_ids_of_table_and_headers_tie_one_patient(tmp_path, store, issuer: str) -> None:
    """Some rows have an id as the header spells it, some one of the study's own, some none."""
    files = {
        name: us(i, i, patient=patient, IssuerOfPatientID=issuer)
        for i, (name, patient) in enumerate(
            {
                "a": "MRN-7",
                "b": "MRN-8",
                "c": "MRN-9",
                "d": "MRN-9",
                "e": "ANON",
                "f": "ANON",
            }.items()
        )
    }
    for i in (10, 11):
        files[f"{i}.png"] = b""
    folder = make_set(
        tmp_path / "set",
        files,
        "image,label,patient_id\na,0,\n10.png,1,MRN-7 \nb,0,S1\nc,1,S2\nd,0,\n11.png,1,s2\n"
        "e,0,S3\nf,1,\n",
    )
    for i in (10, 11):
        Image.fromarray(speckle(seed=i)).save(folder / f"{i}.png")
    of = groups(read(store, folder))
    assert of["a"] == of["10.png"]
    assert of["c"] == of["d"] == of["11.png"]
    assert len(set(of.values())) == 5


def test_a_patient_in_the_table_stands_above_the_header(tmp_path, store) -> None:
    """De-identified objects often bear one PatientID for all."""
    files = {str(i): us(i, i, patient="ANONYMOUS") for i in range(6)}
    csv = "".join(f"{i},{i % 2},{i // 2}\n" for i in range(6))
    manifest = read(store, make_set(tmp_path / "a", files, "image,label,patient_id\n" + csv))
    assert len(set(groups(manifest).values())) == 3
    csv = "image,label\n" + "".join(f"{i},{i % 2}\n" for i in range(6))
    manifest = read(store, make_set(tmp_path / "b", files, csv))
    assert len(set(groups(manifest).values())) == 1
    assert any("looks like a placeholder" in note for note in manifest.notes)


def test_a_placeholder_is_one_whoever_issued_it(tmp_path, store) -> None:
    files = {
        str(i): us(i, i, patient="anonymous", IssuerOfPatientID=f"ward {i % 2}") for i in range(4)
    }
    csv = "image,label\n" + "".join(f"{i},{i // 2}\n" for i in range(4))
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    said = "4 images with the patient id 'anonymous', which looks like a placeholder"
    assert any(note.startswith(said) for note in manifest.notes)
    assert not any("ward" in note for note in manifest.notes)


def test_what_is_no_b_mode_is_left_out_with_its_reason(tmp_path, store) -> None:
    spectral = [region(3, 3, (0, 0, 99, 60))]
    files = {
        "report.dcm": us(1, 1, SOPClassUID=SR),
        "ct.dcm": us(2, 1, SOPClassUID=CT),
        "doppler.dcm": us(3, 1, SequenceOfUltrasoundRegions=spectral),
        "cut.dcm": us(4, 1)[:2500],
        "good.dcm": us(5, 2),
    }
    csv = "AccessionNumber,label\nACC-1,0\nACC-2,1\n"
    manifest = read(store, make_set(tmp_path / "set", files, csv))
    rows = {name: some[0] for name, some in rows_of(manifest).items()}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "report.dcm": "not_ultrasound",
        "ct.dcm": "not_ultrasound",
        "doppler.dcm": "artefact",
        "cut.dcm": "undecodable",
        "good.dcm": None,
    }
    assert "Comprehensive SR" in rows["report.dcm"]["detail"]
    assert "pulsed-wave Doppler" in rows["doppler.dcm"]["detail"]
    assert rows["cut.dcm"]["detail"].startswith("truncated")


def test_of_what_says_that_text_is_burned_in_nothing_is_shown(tmp_path, store) -> None:
    files = {"a": us(1, 1, BurnedInAnnotation="YES"), "b": us(2, 2)}
    manifest = read(store, make_set(tmp_path / "set", files, "image,label\na,0\nb,1\n"))
    rows = {name: some[0] for name, some in rows_of(manifest).items()}
    assert (rows["a"]["burned_in"], rows["b"]["burned_in"]) == (True, None)
    assert rows["a"]["text_boxes"] == [0, 0, 128, 96]
    assert any("1 included image of files that say that text" in each for each in manifest.notes)


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_that_identifies_is_kept(tmp_path, store, keep: bool) -> None:
    elements = {name: PERSON[name] for name in ("IssuerOfPatientID",)}
    files = {f"IM{i}": us(i, i, patient=f"PESEL-88{i}", **elements) for i in range(4)}
    csv = "AccessionNumber,label,study_uid,series,mask\n" + "".join(
        f"ACC-{i},{i % 2},{UID}.2.{i},{UID}.3.{i},\n" for i in range(4)
    )
    csv += "ACC-4711,1,x,y,\n"
    folder = make_set(tmp_path / "set", files, csv)
    hide = None if keep else Pseudonymiser(SecretStr("0123456789abcdef")).of_path
    manifest = ingest(str(folder), RULES, store, (32,), hide_path=hide)
    told = json.dumps(manifest.table.to_pylist()) + " ".join(manifest.notes)
    told += store.read(manifest_key(manifest.manifest_id)).decode()
    secrets = {*PERSON.values(), UID, "PESEL-88", "pesel-88", "ACC-", "4711"}
    assert {secret for secret in secrets if secret in told} == set()
    assert ("IM1" in told) == keep
    assert manifest.table["reason"].to_pylist().count("missing") == 1
    assert "identifying columns dropped: study_uid" in manifest.notes
    assert any("column series holds UIDs of DICOM" in note for note in manifest.notes)


def test_an_identifier_that_no_file_bears_stands_in_no_address(tmp_path, store) -> None:
    folder = make_set(tmp_path / "set", {"a": us(1, 1)}, f"image,label\na,0\nACC-2,1\n{UID}.7,1\n")
    uris = read(store, folder).table["uri"].to_pylist()
    assert sorted(uri.rpartition("/")[2] for uri in uris) == ["a", "labels.csv", "labels.csv"]


def test_packs_of_another_size_are_made_of_the_same_pictures(tmp_path, store) -> None:
    boxes = [region(1, 1, (0, 0, 79, 95)), region(1, 1, (80, 0, 159, 95))]
    files = {
        "c": us(1, 1, pixels=clip(1)),
        "r": us(3, 3, pixels=speckle(96, 160, 5), SequenceOfUltrasoundRegions=boxes),
    }
    folder = make_set(tmp_path / "set", files, "image,label\nc,0\nr,1\n")
    hide = Pseudonymiser(SecretStr("0123456789abcdef")).of_path
    for hide_path in (None, hide):
        other = open_store(str(tmp_path / f"store-{hide_path is None}"))
        first = ingest(str(folder), RULES, other, (32,), hide_path=hide_path)
        again = ingest(str(folder), RULES, other, (32, 24), hide_path=hide_path)
        assert again.manifest_id == first.manifest_id
        fresh = ingest(str(folder), RULES, store, (24,))
        n = len(pack_index(fresh.table))
        packs = [
            open_pack(each, fresh.manifest_id, 24, tmp_path / each.root.rpartition("/")[2], n)
            for each in (other, store)
        ]
        np.testing.assert_array_equal(*packs)


def test_verify_decodes_and_compares_pictures_of_objects(tmp_path, store) -> None:
    files = {"c": us(1, 1, pixels=clip(1)), "d": us(2, 2)}
    folder = make_set(tmp_path / "set", files, "image,label\nc,0\nd,1\n")
    images = read(store, folder).table
    assert changed_images(images) == ([], 0)
    sample = sample_images(images, RULES)
    assert len(sample) == 9
    assert list(pack_faults(store, images, (32,), sample, view=RULES)) == []
    (folder / "c").write_bytes(files["d"])
    faults, unreachable = changed_images(images)
    assert (len(faults), unreachable) == (8, 0)


def test_a_file_that_kills_its_decoder_is_left_out_alone(tmp_path, store, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "PROGRAM", deadly_reader.__name__)
    files = {"a": us(1, 1), "b": us(2, 2) + deadly_reader.SEGV, "c": us(3, 3)}
    manifest = read(store, make_set(tmp_path / "set", files, "image,label\na,0\nb,1\nc,1\n"))
    rows = {name: some[0] for name, some in rows_of(manifest).items()}
    assert [name for name, row in rows.items() if not row["included"]] == ["b"]
    assert rows["b"]["detail"] == "its decoder died over it, 2 times"


def test_an_object_whose_header_cannot_be_read_is_left_out(tmp_path, store, monkeypatch) -> None:
    """It might be of any patient."""

    def refuse(file, bounds):
        if file.name.endswith("b.dcm"):
            raise PermissionError(errno.EACCES, "refused")
        return read_header(file, bounds)

    monkeypatch.setattr(dicom_files, "read_header", refuse)
    files = {"a.dcm": us(1, 1), "b.dcm": us(2, 2)}
    rows = rows_of(
        read(store, make_set(tmp_path / "set", files, "image,label\na.dcm,0\nb.dcm,1\n"))
    )
    assert rows["a.dcm"][0]["included"]
    (row,) = rows["b.dcm"]
    assert (row["reason"], row["image_id"]) == ("undecodable", None)
    assert row["detail"].startswith("its header cannot be read: unreadable, 3 tries")


def test_masks_of_objects_are_set_aside(tmp_path, store) -> None:
    files = {"a.dcm": us(1, 1), "b.dcm": us(2, 2), "m.png": b"x"}
    folder = make_set(tmp_path / "set", files, "image,label,mask\na.dcm,0,m.png\nb.dcm,1,\n")
    manifest = read(store, folder)
    assert all(manifest.table["included"].to_pylist())
    assert any(note.startswith("1 DICOM file with a mask: set aside") for note in manifest.notes)


def test_a_bucket_of_objects_is_read_as_a_folder_is(tmp_path, store) -> None:
    folder = make_set(tmp_path / "set", FILES, "AccessionNumber,label\nACC-1,0\nACC-2,1\nACC-3,0\n")
    here = read(store, folder)
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/objects", recursive=True)
    there = read(open_store(str(tmp_path / "other")), "memory://objects")
    assert there.manifest_id == here.manifest_id
    memory.rm("/objects", recursive=True)
