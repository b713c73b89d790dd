"""The files at an address on any fsspec file system, and the bytes of the small ones."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import InputError
from thyro_core.store.store import filesystem, is_s3, read_files, refuse_password

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Suffixes, in lower case, of unlisted files that count as images of the set."""

# Of Synology's and QNAP's shares, and of Windows; each may hold pictures.
_SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "@recycle", "@recently-snapshot"}) | frozenset(
    {"$recycle.bin", "recycler", "system volume information", "lost+found"}
)


@dataclass(frozen=True)
class Listing:
    """All files below an address but hidden ones.

    Attributes:
        url: The address as a full URL.
        fs: Its file system.
        root: The address on that file system, without a trailing slash.
        sizes: Size [bytes], where known, of each file by its path below the root.
        links_out: Number of links that were left out because they lead out of a local folder: a set
            from another site must not make us read other files.
        odd_names: Names of files that were left out because they are no UTF-8, which no table can
            hold; as `printable_name` gives them.
        no_files: Number of entries of a local folder that were left out because they are no files:
            a pipe would keep its reader for ever.
        refusals: Why a folder below a local one cannot be read, by its path; nobody knows what
            these hold.
        n_hidden: Number of files that were left out because they are hidden or of a system.
        by_content: Files that are images by what they hold, whatever their suffix.
    """

    url: str
    fs: fsspec.AbstractFileSystem
    root: str
    sizes: Mapping[str, int | None]
    links_out: int = 0
    odd_names: tuple[str, ...] = ()
    no_files: int = 0
    refusals: Mapping[str, str] = field(default_factory=dict)
    n_hidden: int = 0
    by_content: frozenset[str] = frozenset()

    def uri(self, name: str) -> str:
        """The full URL of a file."""
        return str(self.fs.unstrip_protocol(f"{self.root}/{name}"))

    def find(self, name: str) -> str | None:
        """The file at the top with this name in any case."""
        return next((path for path in sorted(self.sizes) if path.lower() == name), None)

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            InputError: it cannot be read.
        """
        with explain_refusal(self.url, self.fs):
            return bytes(self.fs.cat_file(f"{self.root}/{name}"))

    def read_all(self, names: list[str]) -> dict[str, bytes]:
        """All bytes of several files, fetched at once; without those that cannot be read."""
        paths = [f"{self.root}/{name}" for name in names]
        contents = read_files(self.fs, paths, on_error="return") if names else []
        pairs = zip(names, contents, strict=True)
        return {name: data for name, data in pairs if isinstance(data, bytes)}

    def heads(self, names: Sequence[str], size: int) -> dict[str, bytes]:
        """The first bytes of files; without those that cannot be read.

        Args:
            names: of files.
            size: most bytes of each.
        """
        paths = {f"{self.root}/{name}": name for name in names}
        if not paths:
            return {}
        starts, ends = [0] * len(paths), [size] * len(paths)
        contents = self.fs.cat_ranges(list(paths), starts, ends, on_error="return")
        heads = zip(paths.values(), contents, strict=True)
        return {name: data for name, data in heads if isinstance(data, bytes)}

    def images(self) -> list[str]:
        """Names of the files with an image's suffix or contents, sorted."""
        by_suffix = {name for name in self.sizes if suffix(name) in IMAGE_SUFFIXES}
        return sorted(by_suffix | self.by_content)


def suffix(name: str) -> str:
    """A file name's suffix in lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


def list_files(source: str) -> Listing:
    """All files below a folder or any fsspec URL, but hidden ones and links that lead out of it.

    Raises:
        InputError: it does not exist or refuses to be read as a whole.
    """
    refuse_password(source)
    fs, root = filesystem(source)
    is_local, refusals = isinstance(fs, LocalFileSystem), dict[str, str]()
    with explain_refusal(source, fs):
        if is_local:
            entries, refusals = _local_infos(fs, root)
        else:
            entries = fs.find(root, detail=True)
    # A key of a bucket may begin with a second slash.
    infos = {str(path)[len(root) :].removeprefix("/"): info for path, info in entries.items()}
    all_visible = {name: info for name, info in infos.items() if name and not is_hidden(name)}
    visible = {name: info for name, info in all_visible.items() if _is_text(name)}
    odd_names = tuple(sorted(printable_name(name) for name in all_visible.keys() - visible.keys()))
    files = {
        name: info
        for name, info in visible.items()
        if not is_local or info["type"] == "file" or Path(root, name).is_file()
    }
    sizes = {
        name: info.get("size")
        for name, info in files.items()
        if not info.get("islink") or stays_inside(Path(root), name)
    }
    url = str(fs.unstrip_protocol(root))
    return Listing(
        url, fs, root, sizes,
        links_out=len(files) - len(sizes), odd_names=odd_names, no_files=len(visible) - len(files),
        refusals=refusals, n_hidden=sum(map(is_hidden, infos)),
    )  # fmt: skip


def _local_infos(
    fs: LocalFileSystem, root: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All that is below a folder, and why each folder that cannot be read cannot.

    fsspec's own listing leaves such a folder out: it would pass for an empty one.
    """
    infos: dict[str, dict[str, Any]] = {}
    refusals: dict[str, str] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        name = folder[len(root) :].removeprefix("/")
        try:
            entries = fs.ls(folder, detail=True)
        except OSError as error:
            if folder == root:
                raise
            # A folder that is gone meanwhile held nothing; a hidden one is none of ours.
            if not isinstance(error, FileNotFoundError) and not is_hidden(name):
                refusals[printable_name(name)] = (error.strerror or "refused").lower()
            continue
        for info in entries:
            if info["type"] == "directory":
                folders.append(info["name"])
            else:
                infos[info["name"]] = info
    return infos, refusals


def printable_name(name: str) -> str:
    r"""A file's name as text: bytes that are no UTF-8 become escapes such as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_text(name: str) -> bool:
    return name == printable_name(name)


def stays_inside(root: Path, name: str) -> bool:
    """Whether a link, and those it leads through, ends in the folder or nowhere."""
    try:
        return (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False  # a link that leads back to itself


@contextmanager
def explain_refusal(source: str, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Turn a file system's refusal into an `InputError` that says what to check."""
    try:
        yield
    except refusal_types(fs) as error:
        msg = f"{source}: expected a folder that can be read, {_refusal(error, fs)}"
        raise InputError(msg) from error


def _refusal(error: Exception, fs: fsspec.AbstractFileSystem) -> str:
    """What was found instead, and the cure; the class of an error says nothing to people."""
    if isinstance(fs, LocalFileSystem) and isinstance(error, OSError) and error.strerror:
        where = f" at {error.filename}" if error.filename else ""
        cure = "grant the right to read it, or take it out of the folder"
        return f"found {error.strerror.lower()}{where}; {cure}"
    return f"found: {error}; check the address and the credentials"


def refusal_types(fs: fsspec.AbstractFileSystem) -> tuple[type[Exception], ...]:
    """Errors of listing and reading; an S3 client's own have no base class in common with them."""
    if not is_s3(fs):
        return (OSError, ValueError)
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    return (OSError, ValueError, BotoCoreError)


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, a folder's entry, or of a system: a thumbnail, a thing deleted."""
    return is_folder_entry(name) or is_of_system(name) or is_under_dot(name)


def is_folder_entry(name: str) -> bool:
    """Whether an object stands for a folder: some stores list those."""
    return name.endswith("/")


def is_of_system(name: str) -> bool:
    """Whether a path is, or lies in, a folder that a system keeps for itself."""
    parts = PurePosixPath(name).parts
    return any(part.startswith("__MACOSX") or part.lower() in _SYSTEM_FOLDERS for part in parts)


def is_under_dot(name: str) -> bool:
    """Whether a name on a path begins with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
