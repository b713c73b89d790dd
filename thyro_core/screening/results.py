"""A night's results for the archive that its images are from: made, sent, and noted as sent.

Whose images they are is read from the images' own headers when a study's turn comes, and goes into
its objects alone. One study is in memory at a time.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import isnan
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.dataset import Dataset

from thyro_core.archive.result_headers import ImageHeader, NoStudyError, read_image_header
from thyro_core.archive.result_objects import (
    ImageResult,
    Scoring,
    map_object,
    map_uid,
    report_object,
    report_uid,
)
from thyro_core.archive.result_uids import SeriesKind, result_series, series_uid
from thyro_core.archive.results_target import ResultsTarget, open_target
from thyro_core.archive.stored_status import ObjectRefusedError
from thyro_core.errors import InputError, StoreError, amount
from thyro_core.imaging.dicom import READER_ERRORS
from thyro_core.pseudonyms import path_hash
from thyro_core.screening.files import FoundFile, stream_files
from thyro_core.screening.outbox import Outbox
from thyro_core.screening.result_maps import MapDrawer
from thyro_core.screening.rules import Night, ScreeningRow
from thyro_core.settings import Settings
from thyro_core.store.keys import path_salt_key, table_key
from thyro_core.store.listing import refusal_types
from thyro_core.store.store import Store, filesystem

_RESULT_COLUMNS = [
    "path_id", "image_id", "frame", "status", "reason", "detail", "prob_malignant", "sd", "band",
]  # fmt: skip
_MAKING_ERRORS: tuple[type[Exception], ...] = (*READER_ERRORS, TypeError, AttributeError)
_VIEW_NOTE = re.compile(r"view (\d+) of \d+ in this picture")


class StudyResults(NamedTuple):
    """What is sent, or would be, of one study of a night."""

    date: str
    bands: Counter[str]
    """Images by band."""
    n_maps: int


@dataclass
class Delivery:
    """What became of the results of some nights.

    Attributes:
        n_studies: studies whose results are there now.
        n_sent: objects that were sent.
        n_present: objects that were there before.
        unsent: names of the files below the batch whose results are not sent.
        n_gone: files that are not there any more, so that nothing can be sent of them.
        n_absent: files that are not there now, but may be later.
        n_nameless: DICOM images that name no study, so that nothing can be sent of them.
        faults: why something is not sent, in words.
    """

    n_studies: int = 0
    n_sent: int = 0
    n_present: int = 0
    unsent: set[str] = field(default_factory=set)
    n_gone: int = 0
    n_absent: int = 0
    n_nameless: int = 0
    faults: dict[str, None] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every image has its result in the archive."""
        return not (self.unsent or self.faults or self.n_gone or self.n_absent or self.n_nameless)

    @property
    def sentence(self) -> str:
        """For a person, in one line."""
        studies = amount(self.n_studies, "study", "studies")
        objects = f"{amount(self.n_sent, 'object')} sent, {self.n_present} there before"
        parts = [f"results of {studies} in the archive: {objects}"]
        if self.unsent:
            parts.append(
                f"of {amount(len(self.unsent), 'file')} not sent, the next run sends them: "
                f"{'; '.join(self.faults)}"
            )
        elif self.faults:
            parts.append("; ".join(self.faults))
        if self.n_gone:
            parts.append(f"{amount(self.n_gone, 'file')} gone before their results were sent")
        if self.n_absent:
            parts.append(
                f"{amount(self.n_absent, 'file')} not here: a screening of the batch sends the rest"
            )
        if self.n_nameless:
            parts.append(
                f"nothing of {amount(self.n_nameless, 'image')}, whose headers name no study, "
                "series or instance: they are seen on the worklist alone"
            )
        return "; ".join(parts)


class _File(NamedTuple):
    entry: FoundFile
    path_id: str


@dataclass
class _Outgoing:
    """A night whose results are to be sent."""

    night: Night
    rows: pa.Table
    noted_files: set[str]
    _places: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, path_id in enumerate(self.rows["path_id"].to_pylist()):
            if path_id is not None:
                self._places.setdefault(path_id, []).append(place)

    @property
    def scoring(self) -> Scoring:
        return Scoring(self.night.model_id, self.night.date)

    @property
    def pending(self) -> set[str]:
        return self._places.keys() - self.noted_files

    def rows_of(self, path_id: str) -> list[ScreeningRow]:
        rows = self.rows.take(self._places[path_id]).to_pylist()
        return sorted(rows, key=lambda row: (row["frame"], _view_of(row) or 0, row["image_id"]))


@dataclass
class ResultsSender:
    """Sends the results of nights of one batch.

    Attributes:
        store: of the nights.
        settings: where results go, credentials and patience.
        batch: address, as the nights have it.
        place: folder or fsspec URL where its files lie now.
    """

    store: Store
    settings: Settings
    batch: str
    place: str
    _fs: fsspec.AbstractFileSystem = field(init=False, repr=False)
    _root: str = field(init=False, repr=False)
    _n_nameless: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Open the batch's file system."""
        self._fs, self._root = filesystem(self.place)

    @property
    def outbox(self) -> Outbox:
        """What was sent before."""
        return Outbox(self.store, str(self.settings.results_to))

    def send(self, nights: Sequence[Night], *, are_all_here: bool) -> Delivery:
        """Send what was not sent yet.

        Args:
            nights: of the batch.
            are_all_here: whether a file that is not in the batch now is gone for good.
        """
        delivery, outgoing = Delivery(), [self._outgoing(night) for night in nights]
        groups = self._groups(outgoing)
        delivery.n_nameless = self._n_nameless
        try:
            with (
                closing(open_target(str(self.settings.results_to), self.settings)) as target,
                closing(MapDrawer(self.store, self._fs, self._root)) as maps,
            ):
                courier = _Courier(target, maps, delivery)
                for (number, *_), files in groups.items():
                    self._try_study(courier, outgoing[number], files)
        except (InputError, StoreError) as error:
            delivery.faults[str(error)] = None
        finally:
            for number, each in enumerate(outgoing):
                own = [file for key, files in groups.items() if key[0] == number for file in files]
                self._conclude(each, own, delivery, are_all_here=are_all_here)
        return delivery

    def _try_study(self, courier: "_Courier", outgoing: _Outgoing, files: Sequence[_File]) -> None:
        delivery = courier.delivery
        try:
            self._send_study(courier, outgoing, files)
        except ObjectRefusedError as error:
            delivery.faults[str(error)] = None
        except self._refusals as error:
            if isinstance(error, StoreError):
                raise
            delivery.faults["a file of the batch cannot be read any more"] = None
        # What a hostile header makes of an object: this study has no result, the others have.
        except _MAKING_ERRORS as error:
            fault = f"a study's results cannot be made ({type(error).__name__}): report this"
            delivery.faults[fault] = None
        else:
            delivery.n_studies += 1
            outgoing.noted_files.update(file.path_id for file in files)

    def preview(self, nights: Sequence[Night], show: Callable[[StudyResults], None]) -> None:
        """Show what `send` would send, study by study; the archive is not asked."""
        outgoing = [self._outgoing(night) for night in nights]
        for (number, *_), files in self._groups(outgoing).items():
            each = outgoing[number]
            rows = [row for file in files for row in each.rows_of(file.path_id)]
            bands = Counter(row["band"] for row in rows)
            show(StudyResults(each.night.date, bands, bands["refer"]))

    def _outgoing(self, night: Night) -> _Outgoing:
        key = table_key("screening", date=night.number, batch_id=night.batch_id)
        with self.store.fs.open(self.store.path(key), "rb") as file:
            rows = pq.ParquetFile(file).read(_RESULT_COLUMNS)
        return _Outgoing(night, rows, self.outbox.files_of(night))

    def _groups(
        self, outgoing: Sequence[_Outgoing]
    ) -> dict[tuple[int, str, tuple[str, str]], list[_File]]:
        """The files to be sent by night, study and patient: two patients never share an object."""
        salt = self.store.read(path_salt_key())
        nights_of_path: dict[str, list[int]] = {}
        for number, each in enumerate(outgoing):
            for path_id in each.pending:
                nights_of_path.setdefault(path_id, []).append(number)
        groups: dict[tuple[int, str, tuple[str, str]], list[_File]] = {}
        for entry in stream_files(self.place):
            path_id = path_hash(salt, f"{self.batch}/{entry.name}")
            for number in nights_of_path.get(path_id, ()):
                key = self._group_of(entry, outgoing[number].night)
                if key is None:
                    outgoing[number].noted_files.add(path_id)
                else:
                    groups.setdefault((number, *key), []).append(_File(entry, path_id))
        return groups

    def _group_of(self, entry: FoundFile, night: Night) -> tuple[str, tuple[str, str]] | None:
        """Study and patient of a file; None: nothing can be sent of it."""
        if entry.fault is not None:
            return None
        try:
            header = self._header(entry, night)
        except NoStudyError:
            self._n_nameless += 1
            return None
        except self._refusals:
            # Of no study that is known: it is tried, and fails, as one of its own.
            return "", ("", "")
        # Pictures, reports, and Thyro's own maps that an archive pushed back.
        if header is None or header.series in result_series(header.study):
            return None
        return header.study, header.patient

    def _header(self, entry: FoundFile, night: Night) -> ImageHeader | None:
        with self._fs.open(f"{self._root}/{entry.name}", "rb") as file:
            return read_image_header(file, night.rules)

    @property
    def _refusals(self) -> tuple[type[Exception], ...]:
        return (*refusal_types(self._fs), StoreError)

    def _send_study(
        self,
        courier: "_Courier",
        outgoing: _Outgoing,
        files: Sequence[_File],
    ) -> None:
        """Send the maps of a study, and last its report."""
        night, scoring = outgoing.night, outgoing.scoring
        results: list[ImageResult] = []
        for file in files:
            header = self._header(file.entry, night)
            if header is None:
                continue
            by_image = {
                row["image_id"]: _result(row, header) for row in outgoing.rows_of(file.path_id)
            }
            results += by_image.values()
            uids = {
                map_uid(result, scoring): image_id
                for image_id, result in by_image.items()
                if result.band == "refer"
            }
            lacking = courier.lacking(uids, header.study, "maps")
            pictures = courier.maps.draw(night, file.entry, [uids[uid] for uid in lacking])
            for image_id, pixels in pictures.items():
                courier.send(map_object(by_image[image_id], pixels, scoring))
        if results:
            uids = {report_uid(results, scoring): ""}
            if courier.lacking(uids, results[0].header.study, "report"):
                courier.send(report_object(results, scoring))

    def _conclude(
        self,
        outgoing: _Outgoing,
        files: Sequence[_File],
        delivery: Delivery,
        *,
        are_all_here: bool,
    ) -> None:
        pending = outgoing.pending
        delivery.unsent |= {file.entry.name for file in files if file.path_id in pending}
        n_gone = len(pending) - len({file.path_id for file in files if file.path_id in pending})
        self.outbox.note(outgoing.night, outgoing.noted_files)
        if are_all_here:
            delivery.n_gone += n_gone
        else:
            delivery.n_absent += n_gone
        if len(pending) == (n_gone if are_all_here else 0):
            self.outbox.finish(outgoing.night)


def begin_delivery(store: Store, night: Night, settings: Settings) -> None:
    """Mark a night whose results are to be sent, before anything of it is written.

    Raises:
        InputError: the setting may not be used, or what it takes is not installed.
    """
    if settings.results_to is not None:
        open_target(settings.results_to, settings).close()
        Outbox(store, settings.results_to).begin(night)


def deliver(
    store: Store, night: Night, settings: Settings, place: str, *, are_all_here: bool
) -> Delivery | None:
    """Send the results of a night, and what earlier nights of its batch left unsent.

    Args:
        store: of the nights.
        night: concluded, and marked by `begin_delivery`.
        settings: where results go; none are sent where it says nothing.
        place: where the batch's files lie now.
        are_all_here: whether a file that is not there is gone for good.
    """
    if settings.results_to is None:
        return None
    sender = ResultsSender(store, settings, night.batch, place)
    return sender.send(sender.outbox.open_nights(night.batch), are_all_here=are_all_here)


@dataclass
class _Courier:
    """Sends objects to an archive, but those that it has."""

    target: ResultsTarget
    maps: MapDrawer
    delivery: Delivery

    def lacking(self, uids: Collection[str], study: str, kind: SeriesKind) -> list[str]:
        """Those of some objects that a series of the archive lacks."""
        if not uids:
            return []
        present = self.target.present(study, series_uid(study, kind))
        self.delivery.n_present += len(present.intersection(uids))
        return [uid for uid in uids if uid not in present]

    def send(self, dataset: Dataset) -> None:
        """Send an object."""
        self.target.send(dataset)
        self.delivery.n_sent += 1


def _result(row: ScreeningRow, header: ImageHeader) -> ImageResult:
    sd = row["sd"]
    return ImageResult(
        header=header,
        frame=row["frame"],
        view=_view_of(row),
        band=row["band"],
        reason=row["reason"],
        probability=row["prob_malignant"],
        spread=None if sd is None or isnan(sd) else sd,
    )


def _view_of(row: ScreeningRow) -> int | None:
    match = _VIEW_NOTE.search(row["detail"] or "")
    return None if match is None else int(match[1]) - 1
