"""What an archive answers to an object that it is sent: by DICOM's status codes, in either way.

C-STORE answers with one of them (PS3.4, B.2.3), STOW-RS with one for each object that it does not
take (PS3.18, 10.5.3).
"""

from thyro_core.errors import InputError, ThyroError

_IS_THERE = 0x0111
_NOT_AUTHORISED = 0x0124
_NO_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)


class ObjectRefusedError(ThyroError):
    """An archive does not take an object; another one it may take."""


class BusyError(Exception):
    """An archive does not take an object now; a moment later it may."""


def check_status(status: int, archive: str) -> None:
    """Make sure that an object is in an archive: taken, or there before.

    Args:
        status: DICOM's code.
        archive: for the message.

    Raises:
        BusyError: it may take it a moment later.
        InputError: it takes nothing from here.
        ObjectRefusedError: it does not take this object.
    """
    if status in {0, _IS_THERE} or status in _WARNINGS:
        return
    if status in _NO_RESOURCES:
        raise BusyError
    if status == _NOT_AUTHORISED:
        msg = (
            f"{archive}: expected an archive that takes results from here, found that it refuses "
            "(0x0124); allow it there, or correct THYRO_RESULTS_TO"
        )
        raise InputError(msg)
    msg = f"{archive}: the archive does not take an object (status 0x{status:04X})"
    raise ObjectRefusedError(msg)
