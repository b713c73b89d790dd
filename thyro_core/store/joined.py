"""Folders of several file systems as the folders of one, for reading."""

from collections.abc import Mapping
from io import IOBase
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class JoinedFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Folders of several file systems as the folders of one, for reading.

    Args:
        places: name of a folder -> its file system, and its path there.
    """

    protocol = "joined"
    cachable = False

    def __init__(self, places: Mapping[str, tuple[fsspec.AbstractFileSystem, str]]) -> None:
        super().__init__()
        self._places = places

    @property
    def is_local(self) -> bool:
        """Whether all of it lies on this machine."""
        return all(isinstance(fs, LocalFileSystem) for fs, _ in self._places.values())

    def place(self, path: str) -> tuple[fsspec.AbstractFileSystem, str]:
        """Where a path lies: its own file system, and the path there."""
        name, _, rest = path.lstrip("/").partition("/")
        fs, root = self._places[name]
        return fs, f"{root}/{rest}"

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IOBase:  # noqa: ANN401
        fs, own_path = self.place(path)
        stream: IOBase = fs.open(own_path, mode)
        return stream

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: object
    ) -> bytes:
        """The bytes of a file."""
        fs, own_path = self.place(path)
        return bytes(fs.cat_file(own_path, start, end))


def own_place(fs: fsspec.AbstractFileSystem, path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """A path on the file system where it lies, which of joined ones is one of them."""
    return fs.place(path) if isinstance(fs, JoinedFileSystem) else (fs, path)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether all files of a file system lie on this machine."""
    return fs.is_local if isinstance(fs, JoinedFileSystem) else isinstance(fs, LocalFileSystem)
