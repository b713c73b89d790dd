"""DICOM files that are compressed as a whole: their elements are unpacked before any is read."""

import io
import zlib
from typing import BinaryIO

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.compressed import RefusedError

MAGIC_AT, MAGIC = 128, b"DICM"
"""What a DICOM file has behind its preamble, and where."""

_META_GROUP = 0x0002
_UNPACK_AT_ONCE = 1 << 20
_MOST_RATIO = 200


def header_stream(file: BinaryIO, bounds: ClipBounds) -> BinaryIO:
    """The file at its beginning; of one that is compressed as a whole its elements.

    Args:
        file: at its beginning.
        bounds: as for `unpack`.

    Raises:
        RefusedError: it unpacks to more, or is larger than what is read.
    """
    is_deflated = _is_deflated(file)
    file.seek(0)
    if not is_deflated:
        return file
    data = file.read(bounds.max_bytes + 1)
    if len(data) > bounds.max_bytes:
        msg = f"more than max_bytes = {bounds.max_bytes}"
        raise RefusedError(msg, "too_large")
    return io.BytesIO(unpack(data, bounds))


def _is_deflated(file: BinaryIO) -> bool:
    """Whether a file is compressed as a whole; it is left behind its meta header."""
    has_magic = file.read(MAGIC_AT + 4)[MAGIC_AT:] == MAGIC
    file.seek(MAGIC_AT + 4 if has_magic else 0)
    meta = read_dataset(
        file, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP
    )
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def unpack(data: bytes, bounds: ClipBounds) -> bytes:
    """The file; of one that is compressed as a whole its elements, without the meta header.

    Args:
        data: all bytes of the file.
        bounds: of what it may unpack to.

    Raises:
        RefusedError: it unpacks to more.
    """
    meta_file = io.BytesIO(data)
    if not _is_deflated(meta_file):
        return data
    body, unpacker, parts = data[meta_file.tell() :], zlib.decompressobj(-zlib.MAX_WBITS), []
    total, rest = 0, body
    while rest and not unpacker.eof:
        parts.append(unpacker.decompress(rest, _UNPACK_AT_ONCE))
        total, rest = total + len(parts[-1]), unpacker.unconsumed_tail
        # A few of the bound's bytes are never legitimate: what is packed shrinks to a third or so.
        if total > min(bounds.max_bytes, _MOST_RATIO * len(body) + _UNPACK_AT_ONCE):
            msg = (
                f"a deflated file that unpacks to more than {total} bytes: export it in another "
                "transfer syntax"
            )
            raise RefusedError(msg, "too_large")
    return b"".join(parts)
