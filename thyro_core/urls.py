"""Addresses in a form that can be shown: without passwords and signatures."""

import re
from pathlib import PurePosixPath


def redact(text: str) -> str:
    """A text without the passwords of its URLs, and without their queries and signatures.

    A file has none: there, ? and # are part of its name.
    """
    without_password = re.sub(r"(?<=://)[^/\s]+@", "", text)
    return re.sub(r"((?<!file)://[^\s?#]+)[?#][^\s;,)]*", r"\1", without_password)


def is_archive(address: str) -> bool:
    """Whether an address is that of a DICOMweb archive."""
    return address.startswith(("dicomweb+https://", "dicomweb+http://"))


def without_local_folders(place: str) -> str:
    """A place for a page that may travel: of a local path the last name alone, else `redact`."""
    is_local = place.startswith(("/", "file://")) or ("/" in place and "://" not in place)
    return PurePosixPath(place).name if is_local else redact(place)
