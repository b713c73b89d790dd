"""What counts as an image of a batch, and how little of a listing is held at once."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.support.folders import refuse_folder
from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import InputError
from thyro_core.screening import files
from thyro_core.screening.decode import names_of, names_table, to_bytes
from thyro_core.screening.files import (
    FoundFile,
    blocks,
    check_batch,
    stream_entries,
    stream_files,
)
from thyro_core.screening.rules import WHY
from thyro_core.store.listing import printable_name
from thyro_core.store.store import filesystem, full_url

NAMES = {
    "a.png": 3, "deep/b.dcm": 4, "deep/deeper/no-suffix": 5, "1.2.840.113619.2.55": 6, "x.webp": 7,
}  # fmt: skip
IGNORED = {
    "labels.csv": "companion", "deep/notes.TXT": "companion", "DICOMDIR": "companion",
    "a/Thumbs.db": "companion", ".hidden.png": "hidden", ".git/c.png": "hidden",
    "half.png.part": "unfinished", "u.dcm.FilePart": "unfinished", "__MACOSX/._a.png": "system",
    "deep/@eaDir/a.png": "system", "lost+found/#12": "system",
}  # fmt: skip


def fill(write) -> None:
    for name, size in NAMES.items():
        write(name, b"x" * size)
    for name in IGNORED:
        write(name, b"yy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def write(name: str, data: bytes) -> None:
        path = tmp_path / "batch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    fill(write)
    return tmp_path / "batch"


def found(batch: str) -> dict[str, int]:
    return {file.name: file.size for file in stream_files(batch)}


def test_all_but_hidden_files_and_companions_are_images(folder: Path) -> None:
    assert found(str(folder)) == NAMES
    assert found(f"file://{folder}") == NAMES
    check_aside(str(folder))


def check_aside(batch: str, **more: str) -> None:
    """All that is listed is either a file of the night or set aside for a reason."""
    entries = {file.name: file.fault for file in stream_entries(batch)}
    aside = {name: f"aside_{kind}" for name, kind in (IGNORED | more).items()}
    assert entries == dict.fromkeys(NAMES) | aside


def test_a_system_s_folder_that_cannot_be_read_is_set_aside_and_a_named_one_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreadable lost+found would be a failed row each night, a readable one no row at all."""
    (folder / "notes.md").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith(("lost+found", ".git", "notes.md")):
            raise PermissionError(13, "no", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    entries = {file.name: file.fault for file in stream_entries(str(folder))}
    assert (entries["lost+found"], entries[".git"]) == ("aside_system", "aside_hidden")
    assert entries["notes.md"] == "unreadable_folder", "what it holds may be images"
    assert faults_of(folder) == dict.fromkeys(NAMES) | {"notes.md": "unreadable_folder"}


def test_other_file_systems_list_the_same() -> None:
    memory = fsspec.filesystem("memory")
    try:
        fill(lambda name, data: memory.pipe_file(f"/night/{name}", data))
        assert found("memory://night") == NAMES
        check_aside("memory://night")
    finally:
        memory.rm("/night", recursive=True)


def test_s3_lists_page_by_page(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    fill(lambda name, data: fs.pipe_file(f"{BUCKET}/night/{name}", data))
    fs.pipe_file(f"{BUCKET}/nightly/not-below.png", b"x")
    asked = []
    real = s3fs.S3FileSystem.call_s3

    def in_small_pages(self, method, **query):
        if method == "list_objects_v2":
            asked.append(method)
            query["MaxKeys"] = 3
        return real(self, method, **query)

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", in_small_pages)
    assert found(f"s3://{BUCKET}/night") == NAMES
    assert len(asked) >= 4
    fs.call_s3("put_object", Bucket=BUCKET, Key="night/", Body=b"")
    fs.call_s3("put_object", Bucket=BUCKET, Key="night/deep/", Body=b"")
    check_aside(f"s3://{BUCKET}/night", **{"deep/": "folder"})
    check_batch(f"s3://{BUCKET}/night")
    with pytest.raises(InputError, match="expected a folder of images, found none"):
        check_batch(f"s3://{BUCKET}/no-such-night")
    forget_clients()


@pytest.mark.parametrize("key", ["night//a.png", "night/b//c d.png", "night/#g *[h].png"])
def test_a_key_of_s3_is_read_as_it_is_listed(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Keys are no paths: nothing of them is to be tidied, whatever a test's server makes of it."""
    page = {"Contents": [{"Key": key, "Size": 3}]}
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", lambda *_, **__: page)
    fs, root = filesystem("s3://bucket/night")
    (file,) = stream_files("s3://bucket/night")
    assert f"night/{file.name}" == key
    assert fs.split_path(f"{root}/{file.name}")[:2] == ("bucket", key)


def faults_of(folder: Path) -> dict[str, str | None]:
    return {file.name: file.fault for file in stream_files(str(folder))}


@pytest.mark.parametrize(
    ("number", "fault"), [(errno.ENOENT, "vanished"), (errno.EIO, "unreadable")]
)
def test_a_file_that_is_listed_and_fails_is_named_and_the_others_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, fault: str
) -> None:
    """One that vanishes meanwhile, one whose disk fails."""
    real = files.stays_inside

    def fail(root: Path, name: str) -> bool:
        if name.endswith("link.png"):
            raise OSError(number, "no", name)
        return real(root, name)

    # A link to a file of the folder, which is looked at before it is followed.
    (folder / "deep" / "link.png").symlink_to(folder / "a.png")
    monkeypatch.setattr(files, "stays_inside", fail)
    assert faults_of(folder) == dict.fromkeys(NAMES) | {"deep/link.png": fault}


def test_what_is_no_file_is_named(folder: Path) -> None:
    """A pipe would be waited for without an end."""
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket.png"))
        (folder / "gone.png").symlink_to(folder / "nowhere")
        (folder / "gone-out.png").symlink_to("/nowhere/at/all.png")
        (folder / "circle.png").symlink_to(folder / "circle.png")
        (folder / "again").symlink_to(folder / "deep")
        assert FoundFile("again", 0, "aside_folder") in set(stream_entries(str(folder)))
        assert faults_of(folder) == dict.fromkeys(NAMES) | {
            "pipe.png": "not_a_file", "socket.png": "not_a_file", "gone.png": "broken_link",
            "gone-out.png": "broken_link", "circle.png": "broken_link",
        }  # fmt: skip
    assert set(filter(None, faults_of(folder).values())) <= set(WHY)


def test_links_that_lead_out_are_named_and_nothing_but_them_is_an_error(
    folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"xxx")
    (folder / "out.png").symlink_to(outside)
    (folder / "in.png").symlink_to(folder / "a.png")
    faults = {file.name: file.fault for file in stream_files(str(folder))}
    assert faults == dict.fromkeys([*NAMES, "in.png"]) | {"out.png": "outside_link"}
    links = tmp_path / "links"
    links.mkdir()
    for number in range(20):
        (links / f"{number}.png").symlink_to(outside)
    (links / "labels.csv").write_text("image,label")
    with pytest.raises(InputError, match=r"nothing but links .* or nowhere \(20\)"):
        check_batch(str(links))
    (links / "a.png").write_bytes(b"")
    check_batch(str(links))


@pytest.mark.parametrize(
    ("error", "fault"), [(PermissionError, "unreadable_folder"), (FileNotFoundError, "vanished")]
)
def test_a_folder_that_cannot_be_listed_is_named_and_the_others_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error, fault
) -> None:
    refuse_folder(monkeypatch, "deep", error)
    entries = set(stream_files(str(folder)))
    others = {FoundFile(name, size) for name, size in NAMES.items() if "deep" not in name}
    assert entries == others | {FoundFile("deep", 0, fault)}


def test_a_folder_that_fails_halfway_is_named_and_the_night_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose names can be read and nothing else, too: each `stat` is refused there."""

    def refuse(entry: os.DirEntry[str], root: str) -> FoundFile:
        if "deep" in entry.path:
            raise PermissionError(13, "no", entry.path)
        return local_file(entry, root)

    local_file = files._local_file
    monkeypatch.setattr(files, "_local_file", refuse)
    entries = set(stream_files(str(folder)))
    others = {FoundFile(name, size) for name, size in NAMES.items() if "deep" not in name}
    deeper = FoundFile("deep/deeper", 0, "unreadable_folder")  # if it came before the failure
    assert entries - {deeper} == others | {FoundFile("deep", 0, "unreadable_folder")}


def test_a_name_need_not_be_text(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/x_\xe9.png")).write_bytes(b"xxxx")
    (name,) = found(str(folder)).keys() - NAMES.keys()
    assert os.fsencode(name) == b"x_\xe9.png"
    assert printable_name(name) == r"x_\xe9.png"
    (packed,) = [names_table([FoundFile(name, 4)])]
    assert list(names_of(to_bytes(packed))) == [FoundFile(name, 4)]


def test_a_loop_of_folders_has_an_end(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert found(str(folder)) == NAMES


def test_blocks_are_filled_one_after_the_other(folder: Path) -> None:
    sizes = [len(block) for block in blocks(str(folder), 3)]
    assert sizes == [3, 3, 3, 3, 3, 1]
    names = {file.name for block in blocks(str(folder), 3) for file in block}
    assert names == NAMES.keys() | IGNORED.keys()


def test_no_more_is_listed_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a million files does not fill the memory."""
    taken = []

    def endless(*_: object) -> Iterator[FoundFile]:
        while True:
            taken.append(1)
            yield FoundFile(f"{len(taken)}.png", 1)

    monkeypatch.setattr("thyro_core.screening.files._walk", endless)
    stream = blocks("memory://endless", 10)
    assert next(stream)[-1] == FoundFile("10.png", 1)
    assert len(taken) == 10


@pytest.mark.parametrize("batch", ["/no/such/folder", "memory://nothing-here"])
def test_a_batch_that_is_not_there_is_refused_at_once(batch: str) -> None:
    with pytest.raises(InputError, match="expected a folder"):
        check_batch(batch)


def test_a_file_is_no_batch_and_a_secret_is_not_repeated(folder: Path) -> None:
    with pytest.raises(InputError, match="expected a folder of images"):
        check_batch(str(folder / "a.png"))
    with pytest.raises(InputError) as refused:
        check_batch("memory://nothing?signature=abc123")
    assert "abc123" not in str(refused.value)


def test_an_address_means_the_same_from_everywhere(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder.parent)
    said = {full_url(each) for each in ("batch", "./batch/", str(folder), f"file://{folder}")}
    assert said == {f"file://{folder}"}
    assert full_url("s3://bucket/in/") == "s3://bucket/in"
