"""DDTI as downloaded: one XML file a case, beside the images of that case."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from thyro_core.config import IngestConfig

MAX_XML_BYTES = 1_000_000
"""Largest case file that is read; those of the set have about 2 kB."""

_CASE_FILE = re.compile(r"\d+\.xml", re.IGNORECASE)
_CASE_IMAGE = re.compile(r"(\d+)_\d+")
_CASE_FIELDS = ("tirads", "age", "sex")
_FORBIDDEN_MARKUP = ("<!doctype", "<!entity")


@dataclass(frozen=True)
class DdtiCase:
    """What a case file says.

    Attributes:
        attributes: `tirads`, `age` and `sex`, those that are filled in.
    """

    attributes: Mapping[str, str]

    def label(self, rules: IngestConfig) -> int | None:
        """0 or 1 by the declared TI-RADS categories; None for any other, or none."""
        category = self.attributes.get("tirads", "").lower()
        if category in {value.strip().lower() for value in rules.tirads_benign}:
            return 0
        if category in {value.strip().lower() for value in rules.tirads_malignant}:
            return 1
        return None


def is_case_file(name: str) -> bool:
    """Whether a file is named like a case: `<number>.xml`."""
    return _CASE_FILE.fullmatch(PurePosixPath(name).name) is not None


def case_of_image(name: str) -> str | None:
    """The case number of `<number>_<k>.jpg`; None for other names."""
    match = _CASE_IMAGE.fullmatch(PurePosixPath(name).stem)
    return match.group(1) if match else None


def parse_case(data: bytes) -> DdtiCase:
    """Read a case file; entities and document types are refused before anything is parsed.

    Raises:
        ValueError: it is too large, not well-formed, declares a document type, or its root is
            not `<case>`.
    """
    if len(data) > MAX_XML_BYTES:
        msg = f"{len(data)} bytes, more than {MAX_XML_BYTES}"
        raise ValueError(msg)
    # Parsed as text, so that no declared encoding can hide a declaration from this check.
    text = _text(data)
    # The parser takes bytes between zeros for UTF-16, whatever the encoding, and reads other words.
    if "\0" in text:
        msg = "not well-formed XML: zero bytes, as in UTF-16; save it as UTF-8"
        raise ValueError(msg)
    if any(word in text.lower() for word in _FORBIDDEN_MARKUP):
        msg = "a document type or an entity is declared"
        raise ValueError(msg)
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, so no entities: see above
    except ET.ParseError as error:
        msg = "not well-formed XML"
        raise ValueError(msg) from error
    if root.tag != "case":
        msg = "the root is not <case>"
        raise ValueError(msg)
    attributes = {tag: (root.findtext(tag) or "").strip() for tag in _CASE_FIELDS}
    return DdtiCase({tag: value for tag, value in attributes.items() if value})


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
