"""A socket that refuses a PDU that is too long before any of it is read.

A PDU begins with its type, a byte that is not used, and its length (DICOM PS3.8, section 9.3). The
length is the sender's word: without a bound four gigabytes of it would be kept in memory.
"""

import socket
from typing import Self


class PduTooLongError(OSError):
    """A peer announces a longer PDU than is read."""


class BoundedSocket(socket.socket):
    """A connection on which no PDU is longer than it may be.

    Attributes:
        longest: bytes that a PDU may have behind its header.
    """

    _HEADER = 6

    @classmethod
    def take_over(cls, connection: socket.socket, longest: int) -> Self:
        """The same connection, bounded; the one given is of no use any more.

        Args:
            connection: a connected TCP socket.
            longest: bytes that a PDU may have behind its header.
        """
        timeout = connection.gettimeout()
        same = cls(fileno=connection.detach())
        same.settimeout(timeout)
        same.longest = longest
        same._header = b""
        same._rest = 0
        return same

    longest: int
    _header: bytes
    _rest: int

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As any socket's.

        Raises:
            PduTooLongError: the next PDU is too long.
        """
        data = super().recv(bufsize, flags)
        self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        while data:
            if self._rest:
                n = min(self._rest, len(data))
                self._rest -= n
                data = data[n:]
                continue
            lacking = self._HEADER - len(self._header)
            self._header += data[:lacking]
            data = data[lacking:]
            if len(self._header) == self._HEADER:
                self._rest = int.from_bytes(self._header[2:], "big")
                self._header = b""
            if self._rest > self.longest:
                msg = f"a PDU of {self._rest} bytes; at most {self.longest} are read"
                raise PduTooLongError(msg)
