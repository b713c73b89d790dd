"""The DICOM objects of an image set: which files they are, and how a table may name them."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from thyro_core.datasets import packs
from thyro_core.datasets.other_files import DICOM_NAME, HEAD_BYTES, is_directory
from thyro_core.datasets.patient_notes import is_placeholder
from thyro_core.errors import StoreError
from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.dicom import is_dicom
from thyro_core.imaging.dicom_header import DicomHeader, read_header
from thyro_core.store.listing import IMAGE_SUFFIXES, Listing, suffix

_NUMBER_SUFFIX = re.compile(r"\.\d+")


@dataclass(frozen=True)
class DicomFile:
    """A DICOM object of an image set."""

    header: DicomHeader
    fault: str | None = None
    """Why its header cannot be read; None: it can."""
    patient: str | None = field(default=None, repr=False)
    """What tells its patient from others, in memory alone; None: it names none."""


def find_dicom(folder: Listing, bounds: ClipBounds) -> dict[str, DicomFile]:
    """The DICOM objects of a folder by their path, with their identifiers.

    Looked into are the files whose names may be those of an archive: `.dcm`, `.dicom`, `.ima`, a
    UID, or without a suffix. A DICOMDIR only lists others.

    Args:
        folder: holds them.
        bounds: of what a deflated file may unpack to.

    Raises:
        InputError: the store refuses everything.
        StoreError: it does not answer.
    """
    # Without a size: nobody knows whether its reader would ever return.
    names = [name for name in sorted(folder.sizes) if folder.sizes[name] and _may_be(name)]
    heads = folder.heads(names, HEAD_BYTES)
    objects = [name for name, data in heads.items() if is_dicom(data)]
    # What has a suffix of DICOM and cannot be read is no other file: its row says why.
    objects += [
        name for name in names if name not in heads and DICOM_NAME.fullmatch(_file_name(name))
    ]
    threads = packs.threads_for(folder.fs)
    files = packs.map_threads(
        lambda name: _read_file_header(folder, name, bounds), objects, threads=threads
    )
    patients = _header_patients(
        {name: file.header for name, file in zip(objects, files, strict=True)}
    )
    return {
        name: replace(file, patient=patients[name])
        for name, file in zip(objects, files, strict=True)
    }


def _header_patients(headers: Mapping[str, DicomHeader]) -> dict[str, str | None]:
    """What tells the patient of each file from others, in memory alone; None: it names none.

    Where a file of an id lacks its issuer, the id alone counts: patients who are taken for one are
    less harm than a patient on both sides of a split.

    Args:
        headers: by file.
    """
    without_issuer = {header.patient for header in headers.values() if header.issuer is None}
    return {
        # Whoever removed an id wrote the same word for all.
        name: header.patient
        if header.patient is None
        or header.patient in without_issuer
        or is_placeholder(header.patient)
        else json.dumps([header.issuer, header.patient])
        for name, header in headers.items()
    }


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


def _may_be(name: str) -> bool:
    kind, last = suffix(name), _file_name(name)
    if kind in IMAGE_SUFFIXES or is_directory(name):
        return False
    return not kind or bool(DICOM_NAME.fullmatch(last) or _NUMBER_SUFFIX.fullmatch(kind))


def _read_file_header(folder: Listing, name: str, bounds: ClipBounds) -> DicomFile:
    path = f"{folder.root}/{name}"

    def read() -> DicomHeader:
        with folder.fs.open(path, "rb") as file:
            return read_header(file, bounds)

    try:
        return DicomFile(packs.read_with_retries(read, name))
    except (OSError, StoreError) as error:
        return DicomFile(DicomHeader(), packs.unread_detail(folder.fs, path, error))


class ExamNames:
    """The objects that an identifier in a table stands for.

    Args:
        files: the objects by path.
    """

    def __init__(self, files: Mapping[str, DicomFile]) -> None:
        self._files = files
        headers = {name: file.header for name, file in files.items()}
        # From the closest to the widest.
        self._names = {
            "SOPInstanceUID": _by_identifier(
                (header.instance, name) for name, header in headers.items()
            ),
            "StudyInstanceUID": _by_identifier(
                (header.study, name) for name, header in headers.items()
            ),
            "AccessionNumber": _by_identifier(
                (header.accession, name) for name, header in headers.items()
            ),
        }

    def __len__(self) -> int:
        return len(self._files)

    def find(self, cell: str) -> tuple[list[str], str] | None:
        """The objects that bear an identifier, and which one it is; None: none does."""
        for kind, groups in self._names.items():
            if names := groups.get(cell):
                return names, kind
        return None

    def patients(self, names: Iterable[str]) -> int:
        """How many patients some objects name."""
        return len({self._files[name].patient for name in names} - {None})

    def may_be_several_patients(self, names: Collection[str]) -> bool:
        """Whether some objects are of several exams, and of one nobody knows the patient."""
        files = [self._files[name] for name in names]
        is_unknown = any(file.patient is None or is_placeholder(file.patient) for file in files)
        return is_unknown and len({file.header.study for file in files}) > 1


def _by_identifier(pairs: Iterable[tuple[str | None, str]]) -> dict[str, list[str]]:
    """By the identifier as a table gives it: its cells are paths, where a separator is a slash."""
    groups: dict[str, list[str]] = defaultdict(list)
    for identifier, name in pairs:
        if identifier is not None:
            groups[str(PurePosixPath(identifier.replace("\\", "/")))].append(name)
    return dict(groups)
