"""What counts as an image of a batch, and how little of a listing is held at once."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.support.s3server import BUCKET, S3Server, forget_clients
from thyro_core.errors import InputError
from thyro_core.screening.files import (
    FoundFile,
    blocks,
    check_batch,
    full_url,
    stream_files,
)

NAMES = {
    "a.png": 3, "deep/b.dcm": 4, "deep/deeper/no-suffix": 5, "1.2.840.113619.2.55": 6, "x.webp": 7,
}  # fmt: skip
IGNORED = ("labels.csv", "deep/notes.TXT", ".hidden.png", ".git/c.png", "DICOMDIR", "a/Thumbs.db",
           "half.png.part", "__MACOSX/._a.png")  # fmt: skip


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
    return dict(stream_files(batch))


def test_all_but_hidden_files_and_companions_are_images(folder: Path) -> None:
    assert found(str(folder)) == NAMES
    assert found(f"file://{folder}") == NAMES


def test_other_file_systems_list_the_same() -> None:
    memory = fsspec.filesystem("memory")
    try:
        fill(lambda name, data: memory.pipe_file(f"/night/{name}", data))
        assert found("memory://night") == NAMES
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
    check_batch(f"s3://{BUCKET}/night")
    with pytest.raises(InputError, match="expected a folder of images, found none"):
        check_batch(f"s3://{BUCKET}/no-such-night")
    forget_clients()


def test_a_file_that_vanishes_while_it_is_listed_is_passed_over(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere")
    assert found(str(folder)) == NAMES


def test_a_loop_of_folders_has_an_end(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert found(str(folder)) == NAMES


def test_blocks_are_filled_one_after_the_other(folder: Path) -> None:
    sizes = [len(block) for block in blocks(str(folder), 2)]
    assert sizes == [2, 2, 1]
    assert {file.name for block in blocks(str(folder), 2) for file in block} == NAMES.keys()


def test_no_more_is_listed_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a million files does not fill the memory."""
    taken = []

    def endless(_fs: object, root: str) -> Iterator[tuple[str, int]]:
        while True:
            taken.append(1)
            yield f"{root}/{len(taken)}.png", 1

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
