"""One night of everything that shares and exports hold: every file is accounted for.

On a folder and on a real S3 server. What each kind of file alone comes to is tested beside it; here
they meet, in blocks, with what an earlier night left.
"""

import csv
import io
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import NamedTuple

import cv2
import fsspec
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit

from tests.support.dicoms import dataset, dicom, encapsulated, region, saved, speckle
from tests.support.faultproxy import FaultProxy, answers, running_proxy
from tests.support.folders import refuse_folder
from tests.support.s3server import BUCKET, forget_clients
from tests.support.screened import RULES, Ward, write_colour
from thyro_core.screening.files import stream_entries, stream_files
from thyro_core.screening.rules import WHY
from thyro_core.screening.verify import verify_nights
from thyro_core.store.keys import worklist_key
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table

pytestmark = pytest.mark.usefixtures("one_thread")

EARLIER, TONIGHT, LATER = "2026-11-24", "2026-11-25", "2026-11-26"
LENIENT = RULES.model_copy(update={"overlay_bound": 0.5})
MPEG4 = "1.2.840.10008.1.2.4.102"
FIT = frozenset({"scored", "copy", "rejected"})
"""A picture that is read: the model may find it unlike its training images."""


class Fate(NamedTuple):
    """What becomes of a file: its rows, and what they may say."""

    rows: int = 1
    statuses: frozenset[str] = FIT
    reason: str | None = None


FAILED = frozenset({"failed"})
REJECTED = frozenset({"rejected"})
UNREADABLE = Fate(1, FAILED, "undecodable")


def picture(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def window(seed: int) -> np.ndarray:
    """Half of a dual view: wider speckle than it is deep."""
    return np.repeat(speckle(320, 34, seed), 4, axis=1)


def clip(width: int, declared: int | None) -> bytes:
    """An MPEG-4 clip of twelve flat frames in DICOM that declares so many."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        writer = cv2.VideoWriter(file.name, cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, 64))
        for shade in range(12):
            writer.write(np.full((64, width, 3), 20 + 7 * shade, np.uint8))
        writer.release()
        stream = file.read()
    source = dataset(np.zeros((2, 64, width, 3), np.uint8), MPEG4)
    source.PhotometricInterpretation = "YBR_PARTIAL_420"
    source.NumberOfFrames = declared
    if declared is None:
        del source.NumberOfFrames
    source.add_new("PixelData", "OB", encapsulate([stream]))
    source["PixelData"].is_undefined_length = True
    return saved(source)


def palette_of_big_endian() -> bytes:
    source = dataset(speckle(seed=31), ExplicitVRBigEndian)
    source.PhotometricInterpretation = "PALETTE COLOR"
    ramp = (np.arange(256) * 257).astype(">u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(source, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(source, f"{name}PaletteColorLookupTableData", ramp)
    return saved(source)


def before() -> dict[str, bytes]:
    """Files that an earlier night has met."""
    with tempfile.TemporaryDirectory() as folder:
        colour = write_colour(Path(folder) / "colour.png", 1).read_bytes()
    return {
        "old/scored.png": picture(speckle(seed=1)),
        "old/colour.png": colour,
        "old/small.png": picture(speckle(40, 40, 2)),
        "old/broken.png": picture(speckle(seed=3))[:500],
        "old/empty.png": b"",
    }


def tonight() -> dict[str, tuple[bytes, Fate]]:
    """Files that come before the night, and what becomes of each."""
    same, clip_frames = speckle(seed=4), [speckle(seed=seed) for seed in (5, 6, 5)]
    dual = np.concatenate([window(7), np.zeros((320, 6), np.uint8), window(8)], axis=1)
    compressed = encapsulated(speckle(), JPEGBaseline8Bit, [picture(speckle(seed=9), "JPEG")])
    halves = [region(1, 1, (0, 0, 63, 95)), region(1, 1, (64, 0, 127, 95))]
    header = np.zeros((160, 200), np.uint8)
    header[40:] = speckle(120, 200, 13)
    cv2.putText(header, "DOE^JANE", (4, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    return {
        "empty-1.png": (b"", UNREADABLE),
        "empty-2.dcm": (b"", UNREADABLE),
        "same/1.dcm": (dicom(same), Fate()),
        "same/2.dcm": (dicom(same, SOPInstanceUID="1.2.3.4.99", StudyTime="101112"), Fate()),
        "same/3.png": (picture(same), Fate()),
        "same/4.bmp": (picture(same, "BMP"), Fate()),
        "same/5.png": (picture(speckle(seed=1)), Fate()),
        "clip.dcm": (dicom(np.stack(clip_frames)), Fate(3)),
        "clip-again.dcm": (dicom(np.stack(clip_frames), SOPInstanceUID="1.2.3.5"), Fate(3)),
        "mpeg.dcm": (clip(96, 12), Fate(8)),
        "mpeg-none.dcm": (clip(112, None), Fate(8)),
        "mpeg-one.dcm": (clip(128, 1), Fate(8)),
        "mpeg-beyond.dcm": (clip(144, 10**5), Fate(8)),
        "dual.png": (picture(dual), Fate(2)),
        "dual.dcm": (dicom(speckle(seed=10), SequenceOfUltrasoundRegions=halves), Fate(2)),
        "far.dcm": (
            dicom(speckle(seed=11), SequenceOfUltrasoundRegions=[region(1, 1, (9, 9, 4000, 4000))]),
            Fate(),
        ),
        "cut.dcm": (compressed[:-700], UNREADABLE),
        "deflated.dcm": (dicom(speckle(seed=12), DeflatedExplicitVRLittleEndian), Fate()),
        "palette.dcm": (palette_of_big_endian(), Fate()),
        "header.png": (picture(header), Fate()),
        "1.2.840.113619.2.55.3": (dicom(speckle(seed=14)), Fate()),
        "no-suffix": (picture(speckle(seed=15)), Fate()),
        "IM [1] *?.png": (picture(speckle(seed=16)), Fate()),
        "photograph.png": (
            picture(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)),
            Fate(1, REJECTED),
        ),
        "notes.doc": (b"no image at all", UNREADABLE),
    }


ASIDE = (
    "labels.csv", "DICOMDIR", "Thumbs.db", ".thumbnails/a.png", "@eaDir/a.png",
    "lost+found/a.png", "$RECYCLE.BIN/a.png", "System Volume Information/a.png",
    "__MACOSX/._a.png", "half.png.part",
)  # fmt: skip
"""What a share holds beside its images; never a file of the night."""


@dataclass
class Place:
    """Where the batch lies, and what only such a place has."""

    address: str
    write: Callable[[str, bytes], None]
    extra: dict[str, Fate]


@pytest.fixture(params=["folder", "s3"])
def place(request, ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "folder":
        yield folder(ward, tmp_path, monkeypatch)
        return
    with running_proxy(request.getfixturevalue("s3_server")) as proxy:
        for name, value in proxy.through.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("THYRO_STORE_PATIENCE", "0.3")
        forget_clients()
        yield bucket(proxy)
    forget_clients()


REFUSALS = {400: "InvalidArgument", 403: "InvalidObjectState", 404: "NoSuchKey", 500: "Internal"}


def bucket(proxy: FaultProxy) -> Place:
    """With keys that are no paths, and objects that the store lists and does not give."""
    fs = fsspec.filesystem("s3", use_listings_cache=False)

    def write(name: str, data: bytes) -> None:
        fs.call_s3("put_object", Bucket=BUCKET, Key=f"whole-night/{name}", Body=data)

    write("/double.png", picture(speckle(seed=20)))
    write("x_é.png", picture(speckle(seed=21)))
    extra = {"double.png": Fate(), "x_é.png": Fate()}
    for status, code in REFUSALS.items():
        write(f"refused-{status}.png", picture(speckle(seed=40 + status)))
        # Not its listing, whose address has the key behind a code for the slash.
        proxy.fail(answers(status, code), match=f"/refused-{status}", method="GET")
        extra[f"refused-{status}.png"] = Fate(1, FAILED, "refused_object")
    return Place(f"s3://{BUCKET}/whole-night", write, extra)


def folder(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """With a name that is no UTF-8, links that lead out, nowhere and back, pipes and sockets, and a
    folder and a file that refuse to be read."""

    def write(name: str, data: bytes) -> None:
        path = ward.batch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    write(os.fsdecode(b"x_\xe9.png"), picture(speckle(seed=21)))
    (tmp_path / "outside.png").write_bytes(picture(speckle(seed=22)))
    (ward.batch / "link.png").symlink_to(tmp_path / "outside.png")
    (ward.batch / "gone.png").symlink_to(ward.batch / "nowhere.png")
    (ward.batch / "circle.png").symlink_to(ward.batch / "circle.png")
    os.mkfifo(ward.batch / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(ward.batch / "socket.png"))
    (ward.batch / "refused").mkdir()
    write("secret.png", picture(speckle(seed=23)))
    refuse_folder(monkeypatch, "refused")
    refuse_file(monkeypatch, "secret.png")
    extra = {
        r"x_\xe9.png": Fate(),
        "link.png": Fate(1, REJECTED, "outside_link"),
        "gone.png": Fate(1, FAILED, "broken_link"),
        "circle.png": Fate(1, FAILED, "broken_link"),
        "pipe.png": Fate(1, REJECTED, "not_a_file"),
        "socket.png": Fate(1, REJECTED, "not_a_file"),
        "refused": Fate(1, FAILED, "unreadable_folder"),
        "secret.png": Fate(1, FAILED, "unreadable"),
    }
    return Place(str(ward.batch), write, extra)


def refuse_file(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let reading a file of this name fail, whoever runs the tests."""
    from fsspec.implementations.local import LocalFileSystem

    real = LocalFileSystem.cat_file

    def cat_file(fs: LocalFileSystem, path: str, *arguments: object, **options: object) -> bytes:
        if str(path).endswith(name):
            raise PermissionError(13, "no", str(path))
        return bytes(real(fs, path, *arguments, **options))

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)


def rows_of(store: Store, date: str) -> list[dict]:
    return read_table(store, "screening", date=int(date.replace("-", ""))).to_pylist()


@pytest.mark.slow
def test_every_file_of_a_night_of_everything_is_accounted_for(ward: Ward, place: Place) -> None:
    ward.means = replace(ward.means, keep_names=True)
    for name, data in before().items():
        place.write(name, data)
    earlier = ward.screen(EARLIER, batch=place.address)
    assert {row["name"]: row["status"] for row in rows_of(ward.store, EARLIER)}.items() >= {
        "old/colour.png": "rejected", "old/small.png": "rejected", "old/broken.png": "failed",
        "old/empty.png": "failed",
    }.items()  # fmt: skip
    assert earlier.counts.files == len(before()) + len(place.extra)

    files = tonight()
    for name, (data, _) in files.items():
        place.write(name, data)
    for name in ASIDE:
        place.write(name, picture(speckle(seed=30)))
    listed = [file.name for file in stream_files(place.address)]
    assert len(listed) == len(set(listed))
    result = ward.screen(TONIGHT, batch=place.address, rules=LENIENT)
    found = rows_of(ward.store, TONIGHT)
    check_sums(ward, result, len(listed), found)
    n_aside = len(list(stream_entries(place.address))) - len(listed)
    assert result.counts.aside == n_aside == len(ASIDE)
    page = unescape(ward.store.read(worklist_key(TONIGHT, "html")).decode())
    assert f"{len(listed) + n_aside} listed = {len(listed)} files + {n_aside} set aside" in page
    (batch,) = read_table(ward.store, "screening_batches", date=20261125).to_pylist()
    assert (batch["aside"], batch["aside_reasons"]) == (n_aside, result.counts.aside_reasons)

    # What was refused is read again under other rules; what was scored is passed over.
    names = Counter(row["name"].removeprefix("/") for row in found)
    again = {name: 1 for name in before() if name != "old/scored.png"}
    read = {name: fate.rows for name, (_, fate) in files.items()}
    beside = {name: 1 for name, fate in place.extra.items() if fate.statuses != FIT}
    assert names == Counter(again | read | beside)
    assert result.counts.known == len(listed) - len(names) == 1 + len(place.extra) - len(beside)
    for row in found:
        name = row["name"].removeprefix("/")
        fate = {n: fate for n, (_, fate) in files.items()}.get(name) or place.extra.get(name)
        if fate is not None:
            assert row["status"] in fate.statuses, row
            assert fate.reason in {None, row["reason"]}, row
    by_name = {row["name"]: row for row in found}
    assert by_name["old/colour.png"]["reason"] != "doppler_colour"
    copies = [row for row in found if row["status"] == "copy"]
    # Three more files of one picture and one of the earlier night's, a frame that a clip repeats,
    # and three of the clip's second file, whichever of the two is met first.
    assert {row["name"].partition("/")[0] for row in copies} >= {"same", "clip.dcm"}
    assert len(copies) == 8
    assert "truncated" in by_name["cut.dcm"]["detail"]
    assert "whole frame used" in by_name["far.dcm"]["detail"]
    assert by_name["header.png"]["text_lines"] >= 1
    for name, declared in (("none", "no number of"), ("one", "1"), ("beyond", "100000")):
        frames = [row for row in found if row["name"] == f"mpeg-{name}.dcm"]
        notes = [f"the file declares {declared} frame" in row["detail"] for row in frames]
        assert notes == [True] * 8, frames
    assert all(WHY[fate.reason] in page for fate in place.extra.values() if fate.reason)

    # Nothing is left for the next night but what may be mended by then.
    later = ward.screen(LATER, batch=place.address, rules=LENIENT)
    tried = {row["name"] for row in rows_of(ward.store, LATER)}
    assert tried == {n for n in (*before(), *files) if "empty" in n} | set(beside)
    check_sums(ward, later, len(listed), rows_of(ward.store, LATER))
    assert all(check.is_passed for check in verify_nights(ward.store))


def check_sums(ward: Ward, result, n_files: int, found: list[dict]) -> None:
    """Files by what became of them, rows by their status; the worklist and its page say both."""
    counts, totals = result.counts, result.totals
    assert counts.files == n_files == counts.fresh + counts.known + counts.late
    assert counts.late == 0
    assert totals.received == len(found)
    statuses = Counter(row["status"] for row in found)
    assert statuses == Counter(
        {"scored": totals.scored, "rejected": totals.rejected, "failed": totals.failed,
         "copy": totals.copies}
    )  # fmt: skip
    listed = ward.store.read(worklist_key(result.night.date, "csv")).decode()
    assert len(list(csv.DictReader(io.StringIO(listed)))) == totals.received
    page = ward.store.read(worklist_key(result.night.date, "html")).decode()
    assert totals.sentence in page
    assert f"met {n_files} files = {counts.fresh} read + {counts.known} passed over" in page
