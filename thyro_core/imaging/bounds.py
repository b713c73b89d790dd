"""The bounds that a reader of image files needs before it decodes a byte.

Ingest and screening each declare such bounds among their own rules, with defaults of their own.
"""

from typing import Protocol


class ImageBounds(Protocol):
    """Bounds of a picture file."""

    @property
    def max_bytes(self) -> int:
        """Largest file that is read [bytes]."""

    @property
    def max_pixels(self) -> int:
        """Most pixels a frame may have before it is refused undecoded."""

    @property
    def max_frames(self) -> int:
        """Most frames a picture file may hold; the first one is used."""


class ClipBounds(ImageBounds, Protocol):
    """Bounds of a DICOM object, which may be a clip."""

    @property
    def max_clip_frames(self) -> int:
        """Most frames a clip may have before it is refused; those of an MPEG stream are counted."""

    @property
    def frames_per_clip(self) -> int:
        """Most frames of a clip that are read; evenly spaced over it."""


class PictureBounds(ClipBounds, Protocol):
    """Bounds of any file, and how its pictures are parted."""

    @property
    def split_views(self) -> bool:
        """Whether two windows of a picture, whose file does not say where they are, are parted."""


def evenly_spaced(n: int, most: int) -> list[int]:
    """At most `most` of n frames, evenly spaced: the middles of as many equal parts of the clip."""
    count = min(n, most)
    return [(2 * i + 1) * n // (2 * count) for i in range(count)]
