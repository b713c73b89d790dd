"""The first part of a multipart answer, piece by piece: no object is held in memory as a whole."""

import re
from collections.abc import Iterable, Iterator, Mapping

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_MOST_HEADER = 65_536


class TruncationError(Exception):
    """The answer ends before its part does."""


def first_part(headers: Mapping[str, str], pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The contents of an answer's first part; of an answer that is no multipart, all of it.

    Args:
        headers: of the answer.
        pieces: its body.

    Raises:
        TruncationError: the part has no end.
    """
    match = _BOUNDARY.search(headers.get("content-type", ""))
    if match is None:
        yield from pieces
        return
    stream = iter(pieces)
    buffer = _behind_header(stream)
    end = f"\r\n--{match[1]}".encode()
    while (place := buffer.find(end)) < 0:
        # An end may be cut in two by the pieces.
        n_safe = max(0, len(buffer) - len(end))
        yield buffer[:n_safe]
        piece = next(stream, None)
        if piece is None:
            raise TruncationError
        buffer = buffer[n_safe:] + piece
    yield buffer[:place]
    # What follows is read, so that the connection can serve the next request.
    for _ in stream:
        pass


def _behind_header(stream: Iterator[bytes]) -> bytes:
    buffer = b""
    while (place := buffer.find(b"\r\n\r\n")) < 0:
        piece = next(stream, None)
        if piece is None or len(buffer) > _MOST_HEADER:
            raise TruncationError
        buffer += piece
    return buffer[place + 4 :]
