"""Image sets in every accepted layout, as users have them and as they get them wrong."""

import io
import os
import posixpath
import random
import sys
import uuid
from collections import Counter
from datetime import date
from pathlib import Path

import fsspec
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.places import SHARED
from thyro_core.config import IngestConfig
from thyro_core.datasets.ddti import MAX_XML_BYTES, parse_case
from thyro_core.datasets.labels import LabelTable, is_identifying, read_labels, relative_path
from thyro_core.datasets.layouts import Entry, ImageSet, read_image_set
from thyro_core.datasets.other_files import MOST_FILES
from thyro_core.datasets.patient_notes import patient_notes
from thyro_core.errors import InputError, StoreError

RULES = IngestConfig()
NUMBERS = "labels in labels.csv: 0 is taken as benign, 1 as malignant"
CASE = "<case><number>1</number><age>{age}</age><sex>F</sex><tirads>{tirads}</tirads></case>"


def put(root: Path, files: dict[str, str | bytes]) -> str:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def table(root: Path, csv: str, *images: str, **extra: str) -> ImageSet:
    files: dict[str, str | bytes] = dict.fromkeys(images, "x")
    return read_image_set(put(root, {**files, "labels.csv": csv, **extra}), RULES)


def by_name(found: ImageSet) -> dict[str, Entry]:
    assert [entry.name for entry in found.entries] == sorted(e.name for e in found.entries)
    names = {entry.name: entry for entry in found.entries}
    assert len(names) == len(found.entries)
    return names


def labels_of(found: ImageSet) -> dict[str, int | None]:
    return {name: entry.label for name, entry in by_name(found).items()}


def test_table_gives_each_file_one_entry(tmp_path: Path) -> None:
    csv = "image,label,patient_id\na.png,benign,p1\nd/b.JPG,1,p2\nc.png,,\ngone.png,MALIGNANT,p1\n"
    found = table(tmp_path, csv, "a.png", "d/b.JPG", "c.png", "extra.tif")
    entries = by_name(found)
    assert found.layout == "labels.csv"
    assert found.source == tmp_path.as_uri()
    assert labels_of(found) == {
        "a.png": 0, "c.png": None, "d/b.JPG": 1, "extra.tif": None, "gone.png": 1,
    }  # fmt: skip
    assert {n: e.patient for n, e in entries.items() if e.patient} == {
        "a.png": "p1", "d/b.JPG": "p2", "gone.png": "p1",
    }  # fmt: skip
    assert [name for name, entry in entries.items() if not entry.present] == ["gone.png"]
    assert [name for name, entry in entries.items() if not entry.is_listed] == ["extra.tif"]
    assert entries["a.png"].size == 1
    assert entries["gone.png"].size is None
    assert entries["d/b.JPG"].uri == (tmp_path / "d/b.JPG").as_uri()
    assert not any(entry.conflict or entry.exclusion_reason for entry in entries.values())
    assert found.has_patients
    risk = "images of one patient may stand on both sides of a split"
    assert found.notes == (NUMBERS, f"2 images of 5 without a patient id: {risk}")


@pytest.mark.parametrize(
    "csv",
    [
        "\ufeffimage,label,patient_id\r\na.png,benign,7\r\n",
        '\ufeff"image","label","patient_id"\na.png,benign,7\n',
        " Image ; LABEL ; Patient ID \n a.png ; Benign ; 7 \n\n;;\n",
        'PatientID,label,image\n7,0,"a.png"\n',
        "image,label,patient_id,,\n.\\a.png,BENIGN,7,,\n",
        "image,label,patientid\n./a.png,0,7",
    ],
)
def test_spellings_of_one_table(tmp_path: Path, csv: str) -> None:
    (entry,) = table(tmp_path, csv, "a.png").entries
    assert (entry.name, entry.label, entry.patient) == ("a.png", 0, "7")
    assert entry.attributes == {}


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    (entry,) = table(tmp_path, "\ufeffside,image,label\nleft,a.png,1\n", "a.png").entries
    assert entry.attributes == {"side": "left"}


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    assert labels_of(table(tmp_path, "image,label\nd\\e\\a.png,1\n", "d/e/a.png")) == {
        "d/e/a.png": 1
    }


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        ("image,label\na.png,benign\nb.png,maybe\n", ["line 3", "'maybe'", "malignant"]),
        ("image,label\na.png,2\n", ["line 2", "'2'"]),
        ("file,class\na.png,1\n", ["image, label", "found file, class", "add image and label"]),
        ("", ["found nothing"]),
        ("image,label,Label\na.png,1,1\n", ["label", "once"]),
        ("image,label\na.png,1,3\n", ["line 2", "expected 2 cells", "found 3"]),
        ("image,label\na.png\n", ["line 2", "found 1"]),
        ('image,label\n"a.png,1\n', ["line 2", "CSV"]),
    ],
)
def test_faults_in_the_table_name_their_line(tmp_path: Path, csv: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        table(tmp_path, csv, "a.png")
    message = str(caught.value)
    assert "labels.csv" in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", "no path"),
        ("/etc/a.png", "an absolute path"),
        ("\\\\host\\a.png", "an absolute path"),
        ("d/../../a.png", "a path with .."),
        ("d\\..\\a.png", "a path with .."),
        ("C:\\a.png", "a drive letter"),
        ("s3://bucket/a.png", "a URL"),
        ("a\x01.png", "a control character"),
    ],
)
def test_a_row_whose_image_lies_elsewhere_is_set_aside_and_named(
    tmp_path: Path, cell: str, fault: str
) -> None:
    found = table(tmp_path, f"image,label\nok.png,1\n{cell},1\nb.png,0\n", "ok.png", "b.png")
    assert labels_of(found) == {"ok.png": 1, "b.png": 0}
    said = (
        f"1 fault in labels.csv: line 3: {fault} instead of an image's path: the row is set aside"
    )
    assert said in found.notes
    assert not [note for note in found.notes if "host" in note or "bucket" in note]


def test_names_spelled_otherwise_are_matched_where_one_file_fits(tmp_path: Path) -> None:
    composed, decomposed = "n\u00f3dulo.png", "no\u0301dulo.png"
    csv = f"image,label\n001,1\nB.PNG,0\nd/c,1\n{decomposed},0\ntwo,1\ne.1,1\n"
    csv += "G7.jpg,1\nH8,0\n"
    files = ["001.png", "b.png", "d/c.JPG", composed, "two.png", "two.jpg", "e.1.png", "f.png"]
    files += ["g7.png", "h8.png"]
    found = table(tmp_path, csv, *files)
    assert labels_of(found) == {
        "001.png": 1, "b.png": 0, "d/c.JPG": 1, composed: 0, "e.1.png": 1,
        "two": 1, "two.png": None, "two.jpg": None, "f.png": None, "g7.png": 1, "h8.png": 0,
    }  # fmt: skip
    assert not by_name(found)["two"].present
    assert (
        "3 names in labels.csv written without a suffix, and matched to the one file that fits"
        in (found.notes)
    )
    for spelling in (
        "in another case", "in another Unicode form", "with another suffix and in another case",
        "without a suffix and in another case",
    ):  # fmt: skip
        assert (
            f"1 name in labels.csv written {spelling}, and matched to the one file that fits"
            in (found.notes)
        )


def test_names_with_another_suffix_are_matched_where_one_file_fits(tmp_path: Path) -> None:
    """A table of the JPEGs that were exported as PNG; bare names of what an archive holds."""
    csv = "image,label\na.jpg,1\nb.JPEG,0\n1.2.840.5,1\nc.jpg,0\nd.jpg,1\ne.txt,1\nf.bmp,0\nf,1\n"
    files = ["a.png", "b.png", "1.2.840.5.dcm", "c.png", "c.tif", "d.dcm", "e.png", "f.png"]
    found = table(tmp_path, csv, *files)
    assert labels_of(found) == {
        "a.png": 1, "b.png": 0, "1.2.840.5.dcm": 1, "c.jpg": 0, "c.png": None, "c.tif": None,
        "d.dcm": 1, "e.txt": 1, "e.png": None, "f.png": None,
    }  # fmt: skip
    assert [name for name, entry in by_name(found).items() if not entry.present] == [
        "c.jpg", "e.txt"
    ]  # fmt: skip
    written = "names in labels.csv written with another suffix, and matched to the one file that"
    assert any(note.startswith(f"4 {written}") for note in found.notes)
    assert by_name(found)["f.png"].conflict, "two rows that mean one file, with two labels"


def test_names_without_their_folder_mean_the_one_file_that_is_called_so(tmp_path: Path) -> None:
    csv = "image,label\nA.png,1\nb.png,0\ntwice.png,1\nup/c.png,0\n"
    files = ("sub/a.png", "sub/deep/b.png", "x/twice.png", "y/twice.png", "sub/c.png")
    found = table(tmp_path, csv, *files)
    entries = by_name(found)
    assert (entries["sub/a.png"].label, entries["sub/deep/b.png"].label) == (1, 0)
    for case in ("", " and in another case"):
        written = f"1 name in labels.csv written without its folder{case}, and matched to the one"
        assert any(note.startswith(written) for note in found.notes)
    # Two files, or a path that says where: nothing is guessed.
    assert not entries["twice.png"].present
    assert not entries["up/c.png"].present


def test_an_image_is_excluded_however_the_specialist_spells_it(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"exclusions.csv": "image,reason\nA.PNG,marker\nb.jpg,marker\nc,marker\nz,marker\n"},
    )
    found = table(tmp_path, "image,label\na.png,1\nb.png,0\nc.png,1\nd.png,0\n",
                  "a.png", "b.png", "c.png", "d.png")  # fmt: skip
    assert {name: entry.exclusion_reason for name, entry in by_name(found).items()} == {
        "a.png": "marker", "b.png": "marker", "c.png": "marker", "d.png": None,
    }  # fmt: skip
    assert "3 images excluded by exclusions.csv" in found.notes
    assert any("1 name in exclusions.csv written in another case" in n for n in found.notes)
    assert "exclusions.csv names images that the set lacks, in line 5" in found.notes


def test_a_name_that_another_row_spells_exactly_is_that_rows(tmp_path: Path) -> None:
    found = table(tmp_path, "image,label\na.png,1\nA.png,0\nb.png,0\n", "a.png", "b.png")
    assert labels_of(found) == {"a.png": 1, "A.png": 0, "b.png": 0}
    assert not by_name(found)["A.png"].present


@pytest.mark.parametrize(
    ("cells", "labels", "is_said"),
    [
        (("1.0", "0.0", ""), (1, 0, None), True),
        (("1", "0", "nan"), (1, 0, None), True),
        (("Malignant", "benign", "None"), (1, 0, None), False),
    ],
)
def test_labels_as_programs_write_them(tmp_path: Path, cells, labels, is_said) -> None:
    names = ("a.png", "b.png", "c.png")
    rows = "".join(f"{name},{cell}\n" for name, cell in zip(names, cells, strict=True))
    found = table(tmp_path, f"image,label\n{rows}", *names)
    assert labels_of(found) == dict(zip(names, labels, strict=True))
    assert (NUMBERS in found.notes) == is_said


@pytest.mark.parametrize(("number", "is_said"), [(6, True), (4, False)])
def test_one_id_for_a_third_of_a_small_set_is_said(
    tmp_path: Path, number: int, is_said: bool
) -> None:
    names = [f"{place:02}.png" for place in range(16)]
    rows = "".join(f"{n},{i % 2},{'p7' if i < number else f'q{i}'}\n" for i, n in enumerate(names))
    notes = table(tmp_path, f"image,label,patient_id\n{rows}", *names).notes
    written = f"{number} of 16 images have one and the same patient id"
    assert any(note.startswith(written) for note in notes) == is_said


def test_placeholders_and_one_id_for_many_are_said_with_their_number(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    patients = ["Unknown"] * 4 + ["p7"] * 12 + [f"q{number}" for number in range(14)]
    rows = "".join(
        f"{n},{i % 2},{p}\n" for i, (n, p) in enumerate(zip(names, patients, strict=True))
    )
    notes = table(tmp_path, f"image,label,patient_id\n{rows}", *names).notes
    assert any(
        note.startswith("4 images with the patient id 'Unknown', which looks like a placeholder")
        for note in notes
    )
    assert any(
        note.startswith("12 of 30 images have one and the same patient id") for note in notes
    )
    assert not [note for note in notes if "p7" in note]


@pytest.mark.parametrize(
    "patient",
    ["n.a.", "N/A", "ANON", "xxx", "Anonymous", "0000", "none", "test", "---", "?", "-", "0",
     " unknown ", "no id", "#NULL", "9999", "de-identified", "X"],
)  # fmt: skip
def test_placeholders_for_a_patient_are_recognised(patient: str) -> None:
    (note,) = patient_notes([patient, patient, "P-17", "P-17"])
    assert note.startswith(f"2 images with the patient id {patient!r}, which looks like a place")


@pytest.mark.parametrize("patient", ["1", "17", "P0000", "Anna", "007", "00001", "nano", "A-1"])
def test_what_may_be_a_patients_id_is_no_placeholder(patient: str) -> None:
    assert patient_notes([patient, patient, "P-17"]) == []


def test_what_is_no_file_is_left_out_and_counted(tmp_path: Path) -> None:
    """A pipe that labels.csv lists kept an ingest waiting without an end."""
    put(tmp_path, {"a.png": "x", "b.png": "x", "d/c.png": "x"})
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "again.png").symlink_to(tmp_path / "a.png")
    found = table(tmp_path, "image,label\na.png,1\nb.png,0\npipe.png,1\n")
    assert {name for name, entry in by_name(found).items() if entry.present} == {
        "a.png", "b.png", "again.png", "d/c.png"
    }  # fmt: skip
    assert any(note.startswith("3 entries left out that are no files") for note in found.notes)
    assert not any("out of the folder" in note for note in found.notes)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    source = put(tmp_path, {"a.png": "x", "labels.csv": "image,label\nä.png,1".encode("latin-1")})
    with pytest.raises(InputError, match="UTF-8"):
        read_image_set(source, RULES)


def test_listed_twice(tmp_path: Path) -> None:
    csv = (
        "image,label,patient_id,view\nsame.png,0,p,axial\nsame.png,benign,p,sagittal\n"
        "odd.png,0,p,\nodd.png,1,p,\nwho.png,1,p,\nwho.png,1,q,\nhalf.png,,,\nhalf.png,1,p,\n"
    )
    found = table(tmp_path, csv, "same.png", "odd.png", "who.png", "half.png")
    entries = by_name(found)
    assert [name for name, entry in entries.items() if entry.conflict] == ["odd.png", "who.png"]
    assert labels_of(found) == {"half.png": 1, "odd.png": None, "same.png": 0, "who.png": None}
    assert (entries["who.png"].patient, entries["odd.png"].patient) == (None, "p")
    assert entries["half.png"].patient == "p"
    assert entries["same.png"].attributes == {"view": "axial"}
    assert "4 images listed more than once in labels.csv" in found.notes


def test_identifying_columns_are_dropped_and_named(tmp_path: Path) -> None:
    csv = (
        "image,label,patient_id,PatientName,Date of birth,side,age\n"
        "a.png,1,p-secret,Jane Roe,1970-01-01,left,53\n"
    )
    found = table(tmp_path, csv, "a.png")
    assert found.entries[0].attributes == {"side": "left", "age": "53"}
    assert found.notes == ("identifying columns dropped: PatientName, Date of birth", NUMBERS)
    shown = repr(found)
    assert [word for word in ("Jane", "1970", "p-secret") if word in shown] == []


@pytest.mark.parametrize(
    "column",
    ["name", "patient_name", "Surname", "firstName", "birth", "DOB", "date_of_birth", "birthdate",
     "MRN", "home address", "phone", "telephone_no", "e-mail", "email", "SSN", "insurance number",
     "patient", "Patient Initials", "zip", "accession_number", "Unnamed: 0", "acc_no", "AccNo",
     "Acc", "StudyID", "study_id", "ReferringPhysician", "Referring", "accessionnumber"],
)  # fmt: skip
def test_identifying_names(column: str) -> None:
    assert is_identifying(column)


@pytest.mark.parametrize(
    "column", ["age", "sex", "tirads", "side", "device", "study_date", "nodule_id", "dobutamine"]
)
def test_names_that_identify_nobody(column: str) -> None:
    assert not is_identifying(column)


def test_masks_are_no_images(tmp_path: Path) -> None:
    csv = "image,label,mask\na.png,1,m\\a_outline.png\nodd_mask.png,0,\n"
    images = ("a.png", "m/a_outline.png", "odd_mask.png", "masks/b.png", "c_mask_1.png", "new.png")
    found = table(tmp_path, csv, *images)
    entries = by_name(found)
    assert list(entries) == ["a.png", "new.png", "odd_mask.png"]
    assert not entries["new.png"].is_listed
    assert entries["a.png"].attributes == {"mask": "m\\a_outline.png"}
    assert {name: entry.masks for name, entry in entries.items() if entry.masks} == {
        "a.png": ("m/a_outline.png",)
    }
    assert "2 masks set aside: no image, or several, would fit" in found.notes
    assert found.notes[0] == "3 masks not taken for images of the set"


def test_listed_files_count_whatever_their_suffix(tmp_path: Path) -> None:
    extra = dict.fromkeys(
        (".hidden.png", "._a.png", "__MACOSX/a.png", "Thumbs.db", "a.dcm", "b.dcm"), "x"
    )
    found = table(tmp_path, "image,label\nscan.gif,1\n", "scan.gif", **extra)
    assert [entry.name for entry in found.entries] == ["scan.gif"]
    said = "files not taken as images: 2 named like DICOM that are neither DICOM nor an image"
    assert found.notes[-2] == said
    assert found.notes[-1] == "3 files left out, hidden or of a system (such as @eaDir)"


def test_what_lies_beside_the_images_is_one_line(tmp_path: Path) -> None:
    names = [f"US.1.2.840.113619.2.55.{number}" for number in range(300)]
    names += ["README", "a.gif", "b.gif", *(f"c.{letter}00" for letter in "abcdefg")]
    found = table(tmp_path, "image,label\na.png,1\n", "a.png", **dict.fromkeys(names, "x"))
    assert found.notes[-1] == (
        "files not taken as images: 2 .gif, 1 .a00, 1 .b00, 1 .c00, 1 .d00, 3 of 3 other "
        f"suffixes, 1 without a suffix, {MOST_FILES} named like DICOM that are neither DICOM nor "
        f"an image, {300 - MOST_FILES} named like DICOM and not looked into"
    )


def test_contents_say_what_is_dicom_and_not_the_name(tmp_path: Path) -> None:
    dicom = bytes(128) + b"DICM" + bytes(9)
    contents = {
        "US.1.2.840.113619.2.55.1": dicom,
        "US.1.2.840.113619.2.55.2": dicom[128:] + bytes(300),
        "US.1.2.840.113619.2.55.3": b"",
        "IM0001": dicom,
        "1.2.840": dicom,
        "DICOMDIR": dicom,
        "a.dcm": b"\xff\xd8\xff\xe0",
        "b.dcm": b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
        "c.ima": b"id,label\n",
        "d.001x": dicom,
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    image_set = table(tmp_path, "image,label\na.png,1\n", "a.png")
    objects = ["1.2.840", "IM0001", "US.1.2.840.113619.2.55.1", "b.dcm"]
    assert [entry.name for entry in image_set.entries] == sorted([*objects, "a.png"])
    assert not any(entry.is_listed for entry in image_set.entries if entry.name != "a.png")
    assert image_set.notes[-1] == (
        "files not taken as images: 1 with an image in them: name them as such (.png, .jpg), "
        "1 with DICOM in them: name them as such (.dcm), 3 named like DICOM that are neither DICOM "
        "nor an image"
    )


def test_images_without_an_images_suffix_are_said(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in {"scan": png, "b.0": png, "c.0": b"", "d.0": b"I"}.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    image_set = table(tmp_path, "image,label\na.png,1\n", "a.png")
    pipe, others = image_set.notes[-1], image_set.notes[-2]
    assert pipe.startswith("1 entry left out that")
    assert others == (
        "files not taken as images: 2 .0, 2 with an image in them: name them as such (.png, .jpg)"
    )


@pytest.mark.parametrize(
    "folder", ["@eaDir", "$RECYCLE.BIN", ".thumbnails", "System Volume Information", "#recycle"]
)
def test_folders_of_the_system_hold_no_images(tmp_path: Path, folder: str) -> None:
    thumbnails = {f"benign/{folder}/a.png": "x", f"{folder}/benign/b.png": "x"}
    source = put(tmp_path, {"benign/a.png": "x", "malignant/b.png": "x", **thumbnails})
    assert labels_of(read_image_set(source, RULES)) == {"benign/a.png": 0, "malignant/b.png": 1}


def test_a_file_whose_name_is_no_text_is_left_out_and_named(tmp_path: Path) -> None:
    source = put(tmp_path, {"benign/a.png": "", "malignant/b.png": ""})
    Path(os.fsdecode(bytes(tmp_path) + b"/benign/x_\xe9.png")).touch()
    found = read_image_set(source, IngestConfig())
    assert by_name(found).keys() == {"benign/a.png", "malignant/b.png"}
    said = r"1 file left out for names that are no UTF-8: benign/x_\xe9.png; rename them"
    assert said in found.notes


def test_exclusions(tmp_path: Path) -> None:
    csv = "image,label\na.png,1\nd/b.png,0\nc.png,0\n"
    exclusions = "image,reason\nd\\b.png,not a nodule\nlost.png,blurred\na.png,\na.png,again\n"
    extra = {"exclusions.csv": exclusions}
    found = table(tmp_path, csv, "a.png", "d/b.png", "c.png", **extra)
    assert {name: entry.exclusion_reason for name, entry in by_name(found).items()} == {
        "a.png": "no reason given", "c.png": None, "d/b.png": "not a nodule",
    }  # fmt: skip
    assert "2 images excluded by exclusions.csv" in found.notes
    assert "exclusions.csv names images that the set lacks, in line 3" in found.notes
    assert [entry.name for entry in found.entries if not entry.is_listed] == []


def test_exclusions_may_not_leave_the_folder(tmp_path: Path) -> None:
    extra = {"exclusions.csv": "image,reason\n../a.png,x\n"}
    with pytest.raises(InputError, match=r"exclusions\.csv line 2"):
        table(tmp_path, "image,label\na.png,1\n", "a.png", **extra)


@pytest.mark.parametrize("base", ["", "Set/"])
def test_folders(tmp_path: Path, base: str) -> None:
    names = ("Benign/a.png", "malignant/p1/b.png", "MALIGNANT/c.bmp", "other/d.png", "e.png")
    files: dict[str, str | bytes] = {f"{base}{name}": "x" for name in names}
    found = read_image_set(put(tmp_path, files), RULES)
    assert found.layout == "folders"
    assert labels_of(found) == {
        f"{base}Benign/a.png": 0, f"{base}MALIGNANT/c.bmp": 1, f"{base}e.png": None,
        f"{base}malignant/p1/b.png": 1, f"{base}other/d.png": None,
    }  # fmt: skip
    assert not found.has_patients
    assert found.notes[0] == "2 images outside benign/ and malignant/ left unlabelled"
    assert found.notes[1].startswith("no patient ids were given")
    assert all(entry.is_listed and entry.present for entry in found.entries)


def test_a_file_in_both_folders_is_in_conflict(tmp_path: Path) -> None:
    found = read_image_set(put(tmp_path, {"benign/malignant/a.png": "x"}), RULES)
    assert [(entry.label, entry.conflict) for entry in found.entries] == [(None, True)]


def test_a_table_stands_above_folders(tmp_path: Path) -> None:
    found = table(tmp_path, "image,label\nbenign/a.png,malignant\n", "benign/a.png")
    assert labels_of(found) == {"benign/a.png": 1}


def test_busi_as_downloaded(tmp_path: Path) -> None:
    root = "Dataset_BUSI_with_GT"
    names = [
        "benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png",
        "malignant/malignant (1).png", "malignant/malignant (1)_mask.png",
        "normal/normal (1).png", "normal/normal (1)_mask.png",
    ]  # fmt: skip
    found = read_image_set(put(tmp_path, {f"{root}/{name}": "x" for name in names}), RULES)
    assert found.layout == "busi"
    assert labels_of(found) == {
        f"{root}/benign/benign (1).png": 0,
        f"{root}/malignant/malignant (1).png": 1,
        f"{root}/normal/normal (1).png": None,
    }
    assert [len(entry.masks) for entry in found.entries] == [2, 1, 1]
    assert found.entries[0].masks == tuple(
        f"{root}/benign/benign (1)_mask{end}.png" for end in ("", "_1")
    )
    assert found.notes[0] == "4 masks not taken for images of the set"
    assert "4 masks matched to 3 images" in found.notes
    assert found.notes[1] == "1 image outside benign/ and malignant/ left unlabelled"


def ddti_tree(root: Path) -> str:
    files: dict[str, str | bytes] = {
        f"{number}.xml": CASE.format(age="", tirads=tirads)
        for number, tirads in {1: " 4A ", 2: "2", 3: "", 6: "0", 17: "5"}.items()
    }
    names = ("1_1", "1_2", "2_1", "3_1", "4_1", "5_1", "6_1", "7_1", "17_1")
    files |= {f"{name}.jpg": "x" for name in names} | {"odd.jpg": "x"}
    files["4.xml"] = "<case><tirads>2</tirads>"
    files["7.xml"] = b"<case>" + b" " * MAX_XML_BYTES + b"<tirads>5</tirads></case>"
    return put(root, files)


def test_ddti_as_downloaded(tmp_path: Path) -> None:
    found = read_image_set(ddti_tree(tmp_path), RULES)
    entries = by_name(found)
    assert found.layout == "ddti"
    assert labels_of(found) == {
        "1_1.jpg": 1, "1_2.jpg": 1, "2_1.jpg": 0, "3_1.jpg": None, "4_1.jpg": None,
        "5_1.jpg": None, "6_1.jpg": None, "7_1.jpg": None, "17_1.jpg": 1, "odd.jpg": None,
    }  # fmt: skip
    assert entries["1_1.jpg"].patient == entries["1_2.jpg"].patient == "1"
    assert entries["17_1.jpg"].patient == "17"
    assert entries["5_1.jpg"].patient == "5"
    assert entries["odd.jpg"].patient is None
    assert entries["1_1.jpg"].attributes == {"tirads": "4A", "sex": "F"}
    assert found.notes[0] == (
        "labels made of TI-RADS categories, not of pathology: 1, 2, 3 benign; "
        "4a, 4b, 4c, 5 malignant; any other, or none, unlabelled"
    )
    assert found.notes[1].endswith("unlabelled: 4.xml, 7.xml")


def test_the_declared_mapping_decides(tmp_path: Path) -> None:
    rules = IngestConfig(tirads_benign=("2", "4A"), tirads_malignant=("0",))
    found = labels_of(read_image_set(ddti_tree(tmp_path), rules))
    assert {name: label for name, label in found.items() if label is not None} == {
        "1_1.jpg": 0, "1_2.jpg": 0, "2_1.jpg": 0, "6_1.jpg": 1,
    }  # fmt: skip


BOMB = '<!DOCTYPE case [<!ENTITY a "{}">]><case><tirads>&a;</tirads></case>'


@pytest.mark.parametrize(
    "data",
    [
        BOMB.format("5").encode(),
        BOMB.format("5").replace("DOCTYPE", "doctype").encode(),
        ('<?xml version="1.0" encoding="utf-16"?>' + BOMB.format("5")).encode("utf-16"),
        b'<?xml version="1.0" encoding="cp037"?>' + BOMB.format("5").encode("cp037"),
        b"<patient><tirads>5</tirads></patient>",
        b"<case><tirads>5</case>",
        b"",
        b"\xff\xfe\x00",
        b"<case>" + b" " * MAX_XML_BYTES + b"</case>",
    ],
)
def test_unsafe_case_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"declared|<case>|well-formed|more than"):
        parse_case(data)


@given(st.binary(max_size=200))
def test_a_case_file_gives_a_case_or_a_value_error(data: bytes) -> None:
    try:
        parse_case(data)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["found no files", "labels.csv", "benign/", "DDTI"]),
        ({"a.png": "x"}, ["1 image without any", "labels.csv"]),
        ({"a.dcm": "x", "b.dcm": "x"}, ["no images", "2 named like DICOM that are neither"]),
        ({"d/labels.csv": "image,label\na.png,1\n"}, ["a labels.csv in d/"]),
        ({"labels.csv": "image,label\n"}, ["no images"]),
        ({"labels.csv": "image,label\na.png,\n"}, ["1 image without any"]),
        ({"1.xml": "<other/>", "1_1.jpg": "x"}, ["1 image without any"]),
        ({"deep/down/benign/a.png": "x"}, ["1 image without any"]),
    ],
)
def test_nothing_to_study_is_said_with_the_cure(
    tmp_path: Path, files: dict[str, str | bytes], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read_image_set(put(tmp_path, files), RULES)
    assert [word for word in words if word not in str(caught.value)] == []
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("source", ["{}/none", "{}/file.txt", "nonsense://x", "memory://none-here"])
def test_unusable_sources(tmp_path: Path, source: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="expected"):
        read_image_set(source.format(tmp_path), RULES)


def test_a_bucket_out_of_reach_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("THYRO_STORE_PATIENCE", "0.1")
    with pytest.raises(StoreError, match="expected the store to answer list_objects_v2") as caught:
        read_image_set(f"s3://bucket-{uuid.uuid4().hex}/images", RULES)
    assert "hidden-secret" not in str(caught.value)


def test_a_memory_file_system_reads_the_same(tmp_path: Path) -> None:
    local = read_image_set(ddti_tree(tmp_path), RULES)
    memory = fsspec.filesystem("memory")
    root = f"/sources-{uuid.uuid4().hex}"
    files = sorted(tmp_path.iterdir())
    for path in random.Random(1).sample(files, len(files)):
        memory.pipe_file(f"{root}/{path.name}", path.read_bytes())
    found = read_image_set(f"memory:/{root}", RULES)
    assert found.notes == local.notes
    strip = [(e.name, e.label, e.patient, e.attributes, e.size) for e in found.entries]
    assert strip == [(e.name, e.label, e.patient, e.attributes, e.size) for e in local.entries]
    with fsspec.open(found.entries[0].uri) as file:
        assert file.read() == b"x"


@given(st.text(max_size=30))
def test_accepted_paths_stay_inside(cell: str) -> None:
    try:
        path = relative_path("labels.csv line 2", cell)
    except InputError:
        return
    assert not path.startswith("/")
    assert path == relative_path("labels.csv line 2", path)
    assert posixpath.normpath(f"/source/{path}").startswith("/source/")


@given(st.binary(max_size=120))
def test_any_bytes_are_a_table_or_an_input_error(data: bytes) -> None:
    try:
        read_labels("labels.csv", b"image,label\n" + data)
    except InputError as error:
        assert str(error).startswith("labels.csv")  # noqa: PT017 - the success is as good


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["benign", "malignant", ""])),
        min_size=1,
        max_size=8,
    ),
    st.randoms(),
)
def test_labels_do_not_depend_on_the_order_of_rows(
    rows: list[tuple[str, str]], shuffler: random.Random
) -> None:
    def outcome(pairs: list[tuple[str, str]]) -> object:
        memory = fsspec.filesystem("memory")
        root = f"/order-{uuid.uuid4().hex}"
        lines = "".join(f"{name}.png,{label}\n" for name, label in pairs)
        memory.pipe_file(f"{root}/labels.csv", f"image,label\nz.png,1\n{lines}".encode())
        return read_image_set(f"memory:/{root}", RULES).entries

    def key(entries: object) -> list[tuple[str, int | None, bool]]:
        return [(e.name, e.label, e.conflict) for e in entries]  # type: ignore[attr-defined]

    shuffled = shuffler.sample(rows, len(rows))
    assert key(outcome(rows)) == key(outcome(shuffled))
    conflicts = {name for name, label, conflict in key(outcome(rows)) if conflict}
    both = {f"{n}.png" for n, _ in rows if {(n, "benign"), (n, "malignant")} <= set(rows)}
    assert conflicts == both


@pytest.mark.parametrize(
    ("name", "counts", "patients"),
    [("ddti", {1: 242, 0: 38, None: 122}, 337), ("busi", {0: 352, 1: 98}, 0)],
)
def test_public_sets(name: str, counts: dict[int | None, int], patients: int) -> None:
    source = SHARED / "data" / name
    if not source.is_dir():
        pytest.skip(f"the public set {name} is not here: set THYRO_SHARED to its parent folder")
    found = read_image_set(str(source), RULES)
    assert Counter(entry.label for entry in found.entries) == counts
    assert len({entry.patient for entry in found.entries} - {None}) == patients
    assert all(entry.present and entry.is_listed and entry.size for entry in found.entries)


# Words and columns of one's own


def table_of(text: str, **rules: object) -> LabelTable:
    return read_labels("labels.csv", text.encode(), IngestConfig.model_validate(rules))


@pytest.mark.parametrize(
    ("words", "label_map", "meanings"),
    [
        ("B M", (), "B is taken as benign, M as malignant"),
        ("0 1", (), "0 is taken as benign, 1 as malignant"),
        ("Benign MALIGNANT", (), ""),
        ("good Bad", ("benign=Good", "malignant=bad"),
         "good is taken as benign, bad as malignant"),
        ("1 0", ("benign=1", "malignant=0"), "1 is taken as benign, 0 as malignant"),
    ],
)  # fmt: skip
def test_words_of_a_label(words: str, label_map: tuple[str, ...], meanings: str) -> None:
    first, second = words.split()
    table = table_of(f"image,label\na.png,{first}\nb.png,{second}\nc.png,\n", label_map=label_map)
    assert [row.label for row in table.rows] == [0, 1, None]
    assert table.meanings == meanings


def test_a_map_leaves_no_other_word_and_says_how_to_give_one() -> None:
    with pytest.raises(InputError, match=r"label among good, bad, found 'malignant'; .*label-map"):
        table_of("image,label\na.png,malignant\n", label_map=("benign=good", "malignant=bad"))
    with pytest.raises(InputError, match="label among benign, malignant, b, m, 0, 1, found 'x'"):
        table_of("image,label\na.png,x\n")


@pytest.mark.parametrize("part", ["good", "benign=", "normal=n", "benign"])
def test_a_map_that_makes_no_sense_is_refused(part: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        IngestConfig(label_map=(part,))


def test_a_word_has_one_meaning() -> None:
    with pytest.raises(InputError, match="expected one meaning for each word, found two for 'x'"):
        table_of("image,label\na.png,x\n", label_map=("benign=x", "malignant=X"))


def test_columns_are_named_where_they_are_called_otherwise() -> None:
    rules = {"image_column": "file", "label_column": "Histology", "patient_column": "case"}
    table = table_of("case,file,histology,label\n7,a.png,benign,odd\n", **rules)
    (row,) = table.rows
    assert (row.image, row.label, row.patient) == ("a.png", 0, "7")
    assert row.attributes == {"label": "odd"}
    with pytest.raises(InputError, match="expected the columns file, Histology, case, found image"):
        table_of("image,label\na.png,benign\n", **rules)
    with pytest.raises(InputError, match="or name the columns that hold them by --label-column"):
        table_of("image,diagnosis\na.png,benign\n")


def test_defaults_leave_the_ids_of_manifests_as_they_were() -> None:
    names = {"image_column", "label_column", "patient_column", "label_map"}
    assert not names & IngestConfig().model_dump(mode="json").keys()
    changed = IngestConfig(label_map=("benign=B",)).model_dump(mode="json")
    assert changed.keys() & names == {"label_map"}


def workbook(rows: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_a_workbook_is_read_as_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    rows = [
        ["Image", "Label", "patient_id", "size", "seen", "note"],
        ["a.png", 0, 12.0, 1.5, date(2020, 2, 29), None],
        [None, None, None, None, None, None],
        ["b.png", "malignant", None, None, None, "x "],
    ]
    (tmp_path / "labels.xlsx").write_bytes(workbook(rows))
    found = read_image_set(str(tmp_path), RULES)
    assert [(e.name, e.label, e.patient, dict(e.attributes)) for e in found.entries] == [
        ("a.png", 0, "12", {"size": "1.5", "seen": "1"}),
        ("b.png", 1, None, {"note": "x"}),
    ]
    assert "labels in labels.xlsx: 0 is taken as benign, 1 as malignant" in found.notes
    assert "column seen holds dates: only their order is kept, 1 to 1" in found.notes
    (tmp_path / "labels.csv").write_text("image,label\na.png,malignant\n")
    assert read_image_set(str(tmp_path), RULES).entries[0].label == 1, "the CSV comes first"


def test_what_is_no_workbook_or_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"labels\.xlsx: expected an Excel workbook, found: BadZip"
    ):
        read_labels("labels.xlsx", b"image,label\n")
    monkeypatch.setattr("thyro_core.datasets.workbook._MOST_BYTES", 100)
    with pytest.raises(InputError, match="bytes unpacked, more than 100"):
        read_labels("labels.xlsx", workbook([["image", "label"]]))


def test_without_its_reader_a_workbook_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r'pip install "thyro\[excel\]", or save .* as labels.csv'):
        read_labels("labels.xlsx", b"")


def test_images_without_labels_are_counted_by_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("scans/a", "scans/b", "c", *(f"f{n}/x" for n in range(7)))):
        file = tmp_path / f"{name}{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        read_image_set(str(tmp_path), RULES)
    counts = "2 in scans/, 1 in the folder itself, 1 in f0/, 1 in f1/, 1 in f2/, 4 more folders"
    assert f"found 10 images without any ({counts})" in str(caught.value)
    with pytest.raises(InputError) as hidden:
        read_image_set(str(tmp_path), RULES, name_files=False)
    assert "found 10 images without any (in 9 folders)" in str(hidden.value)
