"""DICOM files that are compressed as a whole: their elements are unpacked before any is read."""

import io
import zlib

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from thyro_core.imaging.bounds import ClipBounds
from thyro_core.imaging.compressed import RefusedError

MAGIC_AT, MAGIC = 128, b"DICM"
"""What a DICOM file has behind its preamble, and where."""

_META_GROUP = 0x0002
_UNPACK_AT_ONCE = 1 << 20
_MOST_RATIO = 200


def unpack(data: bytes, bounds: ClipBounds) -> bytes:
    """The file; of one that is compressed as a whole its elements, without the meta header.

    Args:
        data: all bytes of the file.
        bounds: of what it may unpack to.

    Raises:
        RefusedError: it unpacks to more.
    """
    has_magic = data[MAGIC_AT : MAGIC_AT + 4] == MAGIC
    meta_file = io.BytesIO(data)
    meta_file.seek(MAGIC_AT + 4 if has_magic else 0)
    meta = read_dataset(
        meta_file, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP
    )
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
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
