"""What an image set lists and does not give: left out by name and reason, and the others stay."""

import os
from pathlib import Path

import pytest

from tests.support.folders import refuse_folder
from tests.support.imagesets import write_image_set
from thyro_core.config import IngestConfig
from thyro_core.datasets.layouts import read_image_set
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.errors import InputError
from thyro_core.store.store import Store, open_store

RULES = IngestConfig()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def unread_rows(manifest: Manifest) -> dict[str, tuple[str, str]]:
    return {
        row["uri"].rsplit("/", 1)[1]: (row["reason"], row["detail"])
        for row in manifest.table.to_pylist()
        if row["image_id"] is None
    }


def test_a_folder_that_cannot_be_read_is_left_out_by_name_and_the_others_stay(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the labels name in it is there for all anybody knows, and not missing."""
    folder = write_image_set(tmp_path / "set", benign=3, malignant=3)
    (folder / "ward 2").mkdir()
    (folder / "images" / "005.png").rename(folder / "ward 2" / "005.png")
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace("images/005", "ward 2/005"))
    whole = ingest(str(folder), RULES, store, (16,))
    assert unread_rows(whole) == {}
    refuse_folder(monkeypatch, "ward 2")
    manifest = ingest(str(folder), RULES, store, (16,))
    assert manifest.manifest_id != whole.manifest_id
    assert sum(manifest.table["included"].to_pylist()) == 5
    unread = unread_rows(manifest)
    assert unread == {
        "ward 2": (
            "undecodable",
            "the folder cannot be read, and nobody knows what it holds: permission denied",
        ),
        "005.png": ("undecodable", "its folder cannot be read: permission denied"),
    }
    (note,) = [note for note in manifest.notes if "cannot be read" in note]
    assert note.startswith("2 files or folders left out that cannot be read: ward 2 (the folder")
    assert not any("without a patient id" in note for note in manifest.notes)
    hidden = ingest(str(folder), RULES, open_store("memory://n"), (16,), hide_path=lambda _: "x")
    assert not any("ward 2" in note for note in hidden.notes)


def test_class_folders_that_cannot_be_read_leave_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("benign", "malignant"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"a")
    real = os.scandir

    def scandir(path):
        if str(path).endswith(("benign", "malignant")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"no images \(2 folders that cannot be read\)"):
        read_image_set(str(tmp_path), RULES)


def test_hidden_files_are_counted(tmp_path: Path) -> None:
    folder = write_image_set(tmp_path / "set", benign=1, malignant=1)
    for name in (".thumbnails/a.png", "@eaDir/a.png", ".DS_Store"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"a")
    notes = read_image_set(str(folder), RULES).notes
    assert "3 files left out, hidden or of a system (such as @eaDir)" in notes


def test_a_case_file_that_cannot_be_read_leaves_its_images_unlabelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    for number in (1, 2):
        case = f"<case><number>{number}</number><tirads>2</tirads></case>"
        (tmp_path / f"{number}.xml").write_text(case)
        (tmp_path / f"{number}_1.jpg").write_bytes(b"a")
    real = LocalFileSystem.cat_file

    def cat_file(fs: LocalFileSystem, path: str, *arguments: object, **options: object) -> bytes:
        if path.endswith("2.xml"):
            raise PermissionError(13, "no", path)
        return bytes(real(fs, path, *arguments, **options))

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    image_set = read_image_set(str(tmp_path), RULES)
    assert [entry.label for entry in image_set.entries] == [0, None]
    assert "case files that cannot be read, their images unlabelled: 2.xml" in image_set.notes
