"""MPEG clips within DICOM: evenly spaced frames of a stream, by OpenCV's FFmpeg.

For a process that may die: a video decoder is C code that meets bytes nobody has checked.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, takewhile

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID

from thyro_core.imaging.bounds import ClipBounds, evenly_spaced
from thyro_core.imaging.compressed import RefusedError

VIDEO_SYNTAXES: tuple[UID, ...] = tuple(
    UID(f"1.2.840.10008.1.2.4.{number}{suffix}")
    for number, suffixes in (
        (100, ("", ".1")), (101, ("", ".1")), (102, ("", ".1")), (103, ("", ".1")),
        (104, ("", ".1")), (105, ("", ".1")), (106, ("", ".1")), (107, ("",)), (108, ("",)),
    )
    for suffix in suffixes
)  # fmt: skip
"""MPEG-2, MPEG-4 AVC/H.264 and HEVC/H.265 (PS3.5, 8.2.5 to 8.2.10)."""

# Containers and streams by their first bytes. FFmpeg also follows playlists to other files.
_START_CODES = (b"\0\0\1", b"\0\0\0\1")
_TRANSPORT_PACKET, _SYNC = 188, b"G"


def has_video() -> bool:
    """Whether OpenCV was built with FFmpeg."""
    return cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends()


@dataclass(frozen=True)
class Clip:
    """An MPEG clip as its stream is, whatever the file declares.

    Attributes:
        n: Frames in the stream.
        frames: uint8 (H, W, 3) in red, green and blue, by position from 0; None: damaged.
    """

    n: int
    frames: Mapping[int, npt.NDArray[np.uint8] | None]


def read_clip(dataset: Dataset, bounds: ClipBounds) -> Clip:
    """Evenly spaced frames of an MPEG clip: files are known to declare one frame, or none.

    The stream is decoded twice, first to count its frames: no container's count can be trusted.

    Args:
        dataset: header and pixel data; its declared size has been checked.
        bounds: how many frames it may have, and how many are taken.

    Raises:
        RefusedError: the stream is none, holds no frame or too many, or is of another size than the
            file declares.
    """
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if not _is_stream(stream):
        msg = "the clip holds no MPEG-2, MPEG-4 or HEVC stream: export it again"
        raise RefusedError(msg, "undecodable")
    # Without a name in any folder: nothing of a patient's stays behind when this process dies.
    with tempfile.TemporaryFile(prefix="thyro-") as file:
        file.write(stream)
        file.flush()
        with _open_capture(file.fileno()) as capture:
            _check_size(capture, dataset)
            n = _frame_count(capture, bounds)
        with _open_capture(file.fileno()) as capture:
            return Clip(n, _frames_at(capture, evenly_spaced(n, bounds.frames_per_clip)))


@contextmanager
def _open_capture(descriptor: int) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(f"/dev/fd/{descriptor}", cv2.CAP_FFMPEG)
    try:
        yield capture
    finally:
        capture.release()


def _frame_count(capture: cv2.VideoCapture, bounds: ClipBounds) -> int:
    most = bounds.max_clip_frames
    n = sum(1 for _ in takewhile(bool, (capture.grab() for _ in range(most + 1))))
    if n > most:
        msg = f"more than max_clip_frames = {most} frames"
        raise RefusedError(msg, "too_large")
    if n < 1:
        msg = "the MPEG stream holds no frame that can be decoded: export the clip again"
        raise RefusedError(msg, "undecodable")
    return n


def _is_stream(stream: bytes) -> bool:
    if stream[4:8] == b"ftyp" or stream.startswith(_START_CODES):
        return True
    packets = stream[: 3 * _TRANSPORT_PACKET : _TRANSPORT_PACKET]
    return len(packets) > 1 and packets == _SYNC * len(packets)


def _check_size(capture: cv2.VideoCapture, dataset: Dataset) -> None:
    if not capture.isOpened():
        msg = "the MPEG stream is damaged or of a kind that is not read: export the clip again"
        raise RefusedError(msg, "undecodable")
    size = tuple(
        int(capture.get(which)) for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    declared_size = int(dataset.Columns), int(dataset.Rows)
    if size != declared_size:
        msg = (
            f"a stream of {size[0]} x {size[1]} pixels in a file of "
            f"{declared_size[0]} x {declared_size[1]}: the file contradicts itself; export it again"
        )
        raise RefusedError(msg, "undecodable")


def _frames_at(
    capture: cv2.VideoCapture, indices: Sequence[int]
) -> dict[int, npt.NDArray[np.uint8] | None]:
    frames: dict[int, npt.NDArray[np.uint8] | None] = dict.fromkeys(indices)
    for before, index in pairwise([-1, *indices]):
        if not all(capture.grab() for _ in range(index - before)):
            break
        is_whole, frame = capture.retrieve()
        if not is_whole:
            break
        frames[index] = np.asarray(frame, np.uint8)[..., ::-1]
    return frames
