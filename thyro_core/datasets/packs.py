"""Packs: all included images of a manifest at one side length, in one memory-mappable array.

Images are decoded and resized once, when they are ingested; training and inference read packs only.
A pack is a NumPy file of one uint8 array of shape (n, side, side), its rows the included images by
ascending image_id.
"""

import errno
import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thyro_core.config import IngestConfig, ViewConfig
from thyro_core.datasets.file_pictures import FileReader
from thyro_core.datasets.hidden_paths import is_location
from thyro_core.errors import InputError, StoreError
from thyro_core.host import cores
from thyro_core.imaging import decode as pictures
from thyro_core.imaging.view import picture_view, row_box, view_size
from thyro_core.store.joined import is_local, own_place
from thyro_core.store.keys import pack_key
from thyro_core.store.refused import object_refusal
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.store.store import Store, disk_full_error, filesystem
from thyro_core.types import Grey

Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3
"""How often a file is read before it counts as unreadable."""

# Any error counts as transient here: file systems word theirs differently, and an image that is
# left out changes the set.
_READS = RetryPolicy(attempts=TRIES, retry_on=lambda error: isinstance(error, OSError))
_AHEAD = 256
_TOGETHER = 16
_CORES = cores()
_WAITING = max(8, _CORES)


def write_pack(store: Store, manifest_id: str, side: int, rows: Iterable[Grey], n: int) -> str:
    """Stream images into a pack; it appears only when all of them are in it.

    Args:
        store: where it goes.
        manifest_id: the manifest whose included images these are.
        side: side length [pixels].
        rows: `n` arrays of shape (side, side), uint8, by ascending image_id.
        n: number of included images.

    Returns:
        The pack's key.

    Raises:
        ValueError: the rows are not `n` arrays of that shape and type.
    """
    return write_array(store, pack_key(manifest_id, side), side, rows, n)


def write_packs(
    store: Store, manifest_id: str, resized_images: Mapping[int, "ImageRows"], order: Sequence[int]
) -> None:
    """Write the packs of all side lengths, side by side.

    Args:
        store: where they go.
        manifest_id: the manifest whose included images these are.
        resized_images: the images at each side length [pixels].
        order: places of the included images in them, by ascending image_id.
    """

    def write(side: int) -> None:
        rows = (resized_images[side][place] for place in order)
        write_pack(store, manifest_id, side, rows, len(order))

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, resized_images))


def write_array(store: Store, key: str, side: int, rows: Iterable[Grey], n: int) -> str:
    """Stream `n` arrays of shape (side, side), uint8, into one at a key, as `write_pack` does.

    Raises:
        ValueError: the rows are not `n` arrays of that shape and type.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, side, side)}
    with store.writing(key) as file:
        np.lib.format.write_array_header_1_0(file, header)
        n_written = 0
        for row in rows:
            if row.shape != (side, side) or row.dtype != np.uint8:
                msg = f"{key}: row {n_written} is {row.dtype} {row.shape}, not uint8 {(side, side)}"
                raise ValueError(msg)
            file.write(np.ascontiguousarray(row).data)
            n_written += 1
        if n_written != n:
            msg = f"{key}: expected {n} rows, got {n_written}"
            raise ValueError(msg)
    return key


def open_pack(store: Store, manifest_id: str, side: int, scratch: Path, n: int) -> Grey:
    """A pack as a read-only memory map, fetched once per node.

    Args:
        store: where the pack lies.
        manifest_id: its manifest.
        side: side length [pixels].
        scratch: node-local folder for packs of a remote store.
        n: number of included images, `len(pack_index(images))`.

    Returns:
        uint8, shape (n, side, side).

    Raises:
        InputError: there is no such pack, or it is cut short, or holds something else.
    """
    return open_array(store, pack_key(manifest_id, side), (n, side, side), scratch)


def open_array(store: Store, key: str, shape: tuple[int, int, int], scratch: Path) -> Grey:
    """The array at a key, uint8 of this shape, as a read-only memory map, fetched once per node.

    Raises:
        InputError: there is no such array, or it is cut short, or holds something else.
    """
    try:
        local = store.local(key, scratch)
        pack = np.load(local, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        msg = f"{store.url}: expected a pack at {key}, found none; ingest the image set again"
        raise InputError(msg) from error
    except (ValueError, EOFError) as error:
        raise _damage_error(local, shape, "no whole array") from error
    if not isinstance(pack, np.memmap):
        pack.close()
        raise _damage_error(local, shape, "an archive")
    if pack.dtype != np.uint8 or pack.shape != shape:
        raise _damage_error(local, shape, f"{pack.dtype} {pack.shape}")
    return pack


def _damage_error(local: Path, shape: tuple[int, int, int], contents: str) -> InputError:
    return InputError(
        f"{local}: expected a pack of uint8 {shape}, found {contents}; "
        "delete this file (and the store's object, if it is damaged too) and ingest again"
    )


def pack_index(images: pa.Table) -> dict[str, int]:
    """Row of each included image in every pack of its manifest.

    Args:
        images: the manifest's `images` table, in any order.

    Returns:
        image_id -> row, by ascending image_id.
    """
    included_ids = images.filter(images["included"])["image_id"].to_pylist()
    return {image_id: row for row, image_id in enumerate(sorted(included_ids))}


def image_proportions(images: pa.Table, view: ViewConfig) -> dict[str, float]:
    """Height over width of what the square of each included image shows.

    Args:
        images: table `images` of a manifest.
        view: what a network sees. With `resize: pad` the square is in proportion: 1.
    """
    included_images = images.filter(images["included"])
    rows = included_images.select(["image_id", "width", "height", "view_box"]).to_pylist()
    proportions = {}
    for row in rows:
        width, height = view_size(row) or (1, 1)
        proportions[row["image_id"]] = 1.0 if view.is_padded else height / width
    return proportions


def ensure_packs(
    store: Store,
    images: pa.Table,
    rules: IngestConfig,
    sides: Sequence[int],
    uris: Mapping[str, str] | None = None,
) -> None:
    """Make the packs that are missing, by decoding the included images once more.

    Args:
        store: where the packs go.
        images: the `images` table of one manifest.
        rules: the rules of its ingest.
        sides: side lengths [pixels] that must be there afterwards.
        uris: where the file of each hash is to be found now; by default where it was found at
            ingest.

    Raises:
        InputError: a file is gone or is no longer the one that was ingested, or the table does not
            say where it was.
    """
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    lacking = [side for side in sides if not store.exists(pack_key(manifest_id, side))]
    if not lacking:
        return
    columns = ["image_id", "file_id", "uri", "view_box"]
    included_images = images.filter(images["included"]).select(columns).to_pylist()
    file_by_image = {row["image_id"]: row["file_id"] or row["image_id"] for row in included_images}
    uri_by_image = {
        row["image_id"]: (uris or {}).get(file_by_image[row["image_id"]], row["uri"])
        for row in included_images
    }
    box_by_image = {row["image_id"]: row_box(row) for row in included_images}
    order = list(pack_index(images))
    if not all(is_location(uri_by_image[image_id]) for image_id in order):
        msg = (
            f"manifest {manifest_id}: expected where its files lie, to make packs of side "
            f"{', '.join(map(str, lacking))}, found no paths (they were ingested with "
            "THYRO_KEEP_NAMES=false); ingest the image set again"
        )
        raise InputError(msg)
    with resized_rows(len(order), lacking) as resized_images, closing(FileReader(rules)) as reader:
        view_rows = ViewRows(rules.view, resized_images)

        def resize(row: int) -> None:
            image_id = order[row]
            fs, path = filesystem(uri_by_image[image_id])
            data = read_verified(fs, path, file_by_image[image_id])
            grey = reader.grey(data, image_id)
            if grey is None:
                msg = (
                    f"{path}: expected image {image_id[:12]} in it, as it was ingested, found none "
                    "by the decoders of this machine; `thyro doctor` says what they read"
                )
                raise InputError(msg)
            view_rows.fill(row, picture_view(grey, rules, box_by_image[image_id]))

        # They were found below one source: one of them says where all are.
        threads = threads_for(filesystem(uri_by_image[order[0]])[0]) if order else 1
        map_threads(resize, range(len(order)), threads=threads)
        write_packs(store, manifest_id, resized_images, range(len(order)))


class ImageRows:
    """Images of one size in a file: written and read whole, from any thread, in any order.

    Not a memory map: to fill the pages of one takes longer than to write them, and a full disk
    kills the program.

    Args:
        file: an empty one, which takes n x side^2 bytes.
        n: number of images, all 0 at first; those written beyond them join them.
        side: side length [pixels].
    """

    def __init__(self, file: IO[bytes], n: int, side: int) -> None:
        self.shape = (n, side, side)
        self._file = file
        self._lock = Lock()
        file.truncate(n * side * side)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Grey]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Grey:
        """Image `row`, uint8 (side, side)."""
        size = self.shape[1] * self.shape[2]
        data = os.pread(self._file.fileno(), size, self._place(row))
        return np.frombuffer(data, np.uint8).reshape(self.shape[1:])

    def __setitem__(self, row: int, image: npt.ArrayLike) -> None:
        whole = np.ascontiguousarray(np.broadcast_to(image, self.shape[1:]), np.uint8)
        self._grow(row + 1)
        if os.pwrite(self._file.fileno(), whole.data, self._place(row)) != whole.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _grow(self, n: int) -> None:
        with self._lock:
            self.shape = (max(n, self.shape[0]), *self.shape[1:])

    def _place(self, row: int) -> int:
        if not 0 <= row < self.shape[0]:
            raise IndexError(row)
        return row * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class ViewRows:
    """Where the pictures of a set go as a network sees them.

    Attributes:
        view: what is declared.
        rows: room for them, by side length [pixels].
    """

    view: ViewConfig
    rows: Mapping[int, ImageRows]

    def fill(self, place: int, view: Grey) -> None:
        """Put a picture into its row at each side length.

        Args:
            place: its row.
            view: as `imaging.view.picture_view` gives it.
        """
        for side, rows in self.rows.items():
            rows[place] = pictures.resize(view, side, pad=self.view.is_padded)


@contextmanager
def resized_rows(n: int, sides: Iterable[int]) -> Iterator[dict[int, ImageRows]]:
    """Room for n images of each side, on disk while the block lasts.

    They take n x side^2 bytes each in the temporary folder, and no memory that cannot be reclaimed.

    Raises:
        DiskFullError: the temporary folder has no room for them.
    """
    with ExitStack() as files:
        files.enter_context(
            disk_full_error(Path(tempfile.gettempdir()), "images at their packs' size", "TMPDIR")
        )
        yield {
            side: ImageRows(files.enter_context(tempfile.TemporaryFile(prefix="thyro-")), n, side)
            for side in sides
        }


def threads_for(fs: fsspec.AbstractFileSystem) -> int:
    """How many threads read and decode the files of a file system.

    As many as cores where they lie on this machine: with more, each finds less of what it needs in
    the caches. More where most of a read is waiting for an object store.
    """
    return _CORES if is_local(fs) else _WAITING


def map_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int = _WAITING,
) -> list[Result]:
    """`work` of every item, in order, a few at a time; the first error stops the rest.

    Args:
        work: reads and decodes one image, say; what it holds is held a few times at once.
        items: its arguments.
        threads: how many are at work at once.
    """
    return map_batches(lambda some: [work(item) for item in some], items, threads=threads)


def map_batches(
    work: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    progress: Progress | None = None,
    threads: int = _WAITING,
) -> list[Result]:
    """As `map_threads`, with `work` of a few items at once, which gives a result for each of them.

    Steps that are taken for several images in a row find their code and tables in the caches.
    `progress` is called with the number done and the number of all.
    """
    results: list[Result] = []
    waiting: deque[Future[list[Result]]] = deque()

    def collect() -> None:
        for result in waiting.popleft().result():
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(items), _TOGETHER):
                waiting.append(pool.submit(work, items[start : start + _TOGETHER]))
                # Not all at once: the pool would queue a large set before the first error shows.
                if len(waiting) * _TOGETHER > _AHEAD:
                    collect()
            while waiting:
                collect()
        finally:
            for future in waiting:
                future.cancel()
    return results


def unread_detail(fs: fsspec.AbstractFileSystem, path: str, error: OSError | StoreError) -> str:
    """Why a file could not be read in any attempt, for people; never a server's own words.

    Args:
        fs: its file system.
        path: of the file.
        error: what the last try raised.

    Raises:
        InputError: the store refuses not this object, but everything.
        StoreError: it does not answer.
    """
    if isinstance(error, StoreError):
        answer = object_refusal(*own_place(fs, path), error) or "it is gone meanwhile"
        return f"the store lists the object and does not give it: {answer}"
    reason = os.strerror(error.errno) if error.errno else "refused"
    return f"unreadable, {TRIES} tries: {reason}; check its permissions, there or at the store"


def read_with_retries(read: Callable[[], Result], path: str) -> Result:
    """What `read` returns; a failed read is repeated, as an object store may fail for a moment.

    Args:
        read: reads one file.
        path: the file's path.

    Raises:
        OSError: the last attempt failed too.
    """
    try:
        return _READS.call(read, path)
    except RetriesExhaustedError as exhaustion:
        raise exhaustion.error from None


def read_verified(fs: fsspec.AbstractFileSystem, path: str, image_id: str) -> bytes:
    """A file's bytes, if they are still those that an image_id stands for.

    Raises:
        InputError: the file cannot be read (any more), or has other contents.
    """
    try:
        data = bytes(read_with_retries(lambda: fs.cat_file(path), path))
    except OSError as error:
        fault = type(error).__name__
    else:
        if hashlib.sha256(data).hexdigest() == image_id:
            return data
        fault = "other contents"
    msg = (
        f"{path}: expected the file that was ingested as image {image_id[:12]}, found {fault}; "
        "put that file back, or ingest the image set again from where it lies now"
    )
    raise InputError(msg)
