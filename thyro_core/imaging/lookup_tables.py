"""Lookup tables of DICOM: palettes, whole or in segments, and tables of grey levels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from thyro_core.imaging.compressed import RefusedError
from thyro_core.types import FloatArray

_CHANNELS = ("Red", "Green", "Blue")
_MOST_ENTRIES = 65_536
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2

Words = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class LookupTable:
    """A table of PS3.3, C.11.1.1 or C.11.2.1.1.

    Attributes:
        values: uint16 (n,).
        first: stored value that the first entry is for.
        bits: bits of an entry.
    """

    values: Words
    first: int
    bits: int

    def __call__(self, stored_values: FloatArray | npt.NDArray[np.integer]) -> FloatArray:
        """Entries of stored values; below and above the table its ends count."""
        places = np.clip(
            np.rint(stored_values).astype(np.int64) - self.first, 0, len(self.values) - 1
        )
        return self.values[places].astype(np.float64)

    @property
    def full_scale(self) -> int:
        """The largest value that an entry can hold."""
        return (1 << self.bits) - 1


def grey_table(item: Dataset, *, is_little: bool, is_signed: bool) -> LookupTable:
    """The table in an item of a modality or VOI LUT sequence.

    Args:
        item: with LUTDescriptor and LUTData.
        is_little: byte order of the file.
        is_signed: whether the values that it is looked up by may be negative.

    Raises:
        RefusedError: it has fewer entries than it declares.
    """
    n, first, bits = _descriptor(item, "LUTDescriptor", is_signed=is_signed)
    data = item.LUTData
    if isinstance(data, bytes):
        values = _entries(data, n, is_little=is_little)
    else:
        values = np.atleast_1d(np.asarray(data)).astype(np.uint16)
    return LookupTable(_whole(values, n), first, bits)


def palette_colours(indices: npt.NDArray[np.integer], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Colours of a palette picture (PS3.3, C.7.6.3.1.5 and C.7.9.2).

    Entries of 16 bits are scaled to 8; those whose 16 bits never pass 255 hold 8.

    Args:
        indices: (H, W).
        dataset: with the three tables, whole or in segments.

    Returns:
        (H, W, 3).

    Raises:
        RefusedError: a table is missing or has fewer entries than it declares.
    """
    is_little = bool(dataset.original_encoding[1])
    is_signed = bool(dataset.PixelRepresentation)
    tables = [_channel(dataset, name, is_little=is_little, is_signed=is_signed)
              for name in _CHANNELS]  # fmt: skip
    shift = 8 if max(int(values.max()) for values, _ in tables) > 255 else 0
    channels = []
    for values, first in tables:
        eight = (values >> shift).astype(np.uint8)
        channels.append(eight[np.clip(indices.astype(np.int64) - first, 0, len(eight) - 1)])
    return np.stack(channels, axis=-1)


def _channel(
    dataset: Dataset, channel: str, *, is_little: bool, is_signed: bool
) -> tuple[Words, int]:
    name = f"{channel}PaletteColorLookupTable"
    if f"{name}Descriptor" not in dataset:
        msg = f"a palette picture without its {channel.lower()} table: export it again as RGB"
        raise RefusedError(msg, "undecodable")
    n, first, bits = _descriptor(dataset, f"{name}Descriptor", is_signed=is_signed)
    if f"{name}Data" in dataset:
        return _whole(_entries(dataset[f"{name}Data"].value, n, is_little=is_little), n), first
    segments = dataset.get(f"Segmented{name}Data") or b""
    if bits == 8:
        words = _bytes(segments, is_little=is_little).astype(np.uint16)
    else:
        words = _entry_words(segments, is_little=is_little)
    return _whole(_expand(words.tolist(), n, 1 if bits == 8 else 2), n), first


def _descriptor(item: Dataset, name: str, *, is_signed: bool) -> tuple[int, int, int]:
    count, first, bits = (int(value) for value in item[name].value)
    first &= 0xFFFF
    if is_signed and first >= 0x8000:
        first -= 0x10000
    if not 8 <= bits <= 16:
        msg = f"a lookup table of {bits} bits, expected 8 to 16: export the file again"
        raise RefusedError(msg, "undecodable")
    return (count & 0xFFFF) or _MOST_ENTRIES, first, bits


def _entries(data: bytes, n: int, *, is_little: bool) -> Words:
    """Entries of a whole table: words, or bytes where there are not enough for words."""
    if len(data) >= 2 * n:
        return _entry_words(data, is_little=is_little)
    return _bytes(data, is_little=is_little).astype(np.uint16)


def _entry_words(data: bytes, *, is_little: bool) -> Words:
    even = data[: len(data) // 2 * 2]
    return np.frombuffer(even, "<u2" if is_little else ">u2").astype(np.uint16)


def _bytes(data: bytes, *, is_little: bool) -> npt.NDArray[np.uint8]:
    """Bytes that are packed in words: a word's low one comes first (PS3.5, annex A.2)."""
    values = np.frombuffer(data, np.uint8)
    if is_little:
        return values
    return values[: len(values) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()


def _whole(values: Words, n: int) -> Words:
    if len(values) < n:
        msg = f"a lookup table of {len(values)} entries that declares {n}: export the file again"
        raise RefusedError(msg, "undecodable")
    return values[:n]


def _expand(words: list[int], n: int, width: int) -> Words:
    """The n entries of a table in segments (PS3.3, C.7.9.2); no more are made.

    Args:
        words: opcodes, lengths and values.
        n: entries declared.
        width: bytes a word, in which an indirect segment's offset is given.
    """
    entries: list[int] = []
    position, end, budget = 0, len(words), 2 * _MOST_ENTRIES
    while position + 2 < end and len(entries) < n and budget > 0:
        opcode, length = words[position : position + 2]
        if opcode != _INDIRECT:
            position = _segment(words, position, entries, n)
            budget -= 1
            continue
        # The offset is 32 bits, in bytes, its low part first.
        parts = words[position + 2 : position + 2 + 4 // width]
        place = sum(part << (8 * width * i) for i, part in enumerate(parts)) // width
        position += 2 + 4 // width
        for _ in range(length):
            if place + 2 >= end or words[place] == _INDIRECT or len(entries) >= n or budget <= 0:
                break
            place = _segment(words, place, entries, n)
            budget -= 1
    return np.array(entries[:n], np.uint16)


def _segment(words: list[int], position: int, entries: list[int], n: int) -> int:
    """Append a discrete or linear segment; where the next one stands."""
    opcode, length = words[position : position + 2]
    if opcode == _DISCRETE:
        entries += words[position + 2 : position + 2 + min(length, n - len(entries))]
        return position + 2 + length
    if opcode != _LINEAR or not entries:
        msg = f"a palette segment of kind {opcode}, expected 0, 1 or 2: export the file again"
        raise RefusedError(msg, "undecodable")
    ramp = np.linspace(entries[-1], words[position + 2], length + 1)[1:]
    entries += np.rint(ramp).astype(int).tolist()
    return position + 3
