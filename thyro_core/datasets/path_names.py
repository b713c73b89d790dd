"""Paths that may identify people.

A path is judged by its form alone, below the source: a guess in both directions. What is found is
counted and never repeated.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath

NOTE_MARK = "judged by their form alone: they stay in the table `images`, column `uri`"
"""Part of every note of `path_notes`."""

# What file names of image sets say that is nobody's name: kinds, sides, planes, places, devices.
_TERM_LIST = (
    "adenoma and annotated anon anonymised anonymized archive area artery aug augmented axial "
    "batch benign bethesda biopsy bmode cancer carcinoma case cases class classes clip control "
    "copy crop cropped cyst data dataset dcm default deidentified device dicom doppler dual echo "
    "exam export exported fig figure file files final flip fnac fold folder follicular frame "
    "frames full ge gland gray grey group highres horizontal hospital html image images img imgs "
    "isthmus jpeg jpg label labels left lobe long longitudinal lower malign malignant mask masks "
    "medical mid middle neck new nodule nodules none normal of old original papillary part "
    "patient patients phantom photo picture png pole ptc raw renamed resized right roi rotated "
    "sag sagittal sample samples scan scans screen screenshot seg segmentation serie series set "
    "side siemens slice source split study subject suspicious test testing the thumb thumbs "
    "thyroid tif tiff tirads train training trainval trans transverse tumor tumour ultrasonic "
    "ultrasound unknown upper us usg val valid validation vertical video view views window with "
    "without "
)
_TERMS = frozenset(_TERM_LIST.split())
_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])")
# Two words side by side; DICOM writes persons as FAMILY^GIVEN.
_SEPARATOR = re.compile(r"[\s_.,^-]{1,2}")
_SHORTEST_NAME = 3
UID = re.compile(r"\d+(\.\d+){4,}")
"""A UID of DICOM."""

_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"(?<!\d)(?:{_YEAR}([-_.]?){_MONTH}\1{_DAY}|{_DAY}([-_.]){_MONTH}\2{_YEAR})(?!\d)"
)
_MEDICAL_ID = re.compile(
    r"(?<![a-z])(?:mrn|pid|pat|patid|patient|patientid|patient[-_ ]id|ssn|nhs|fallnr|fall|hn)"
    r"[-_ #.]*\d{5,}",
    re.IGNORECASE,
)


def path_notes(names: Iterable[str]) -> list[str]:
    """How many paths may identify a person, in one sentence; none: no note.

    Args:
        names: paths below the source.
    """
    paths = list(names)
    counts = {
        "may hold a person's name": sum(map(holds_name, paths)),
        "may hold a date (of birth, or of an examination)": sum(map(holds_date, paths)),
        "may hold a medical id": sum(map(holds_medical_id, paths)),
        "hold a UID of DICOM": sum(map(holds_uid, paths)),
    }
    phrases = [f"{number} {what}" for what, number in counts.items() if number]
    if not phrases:
        return []
    cure = "rename the files, or set THYRO_KEEP_NAMES=false"
    return [f"of {len(paths)} paths, {', '.join(phrases)}, {NOTE_MARK}; {cure}"]


def holds_name(path: str) -> bool:
    """Whether two words in a row are no terms of the field: `Doe_Jane`, `DOE^JANE`, `JaneDoe`."""
    return any(_has_two_words(part) for part in _path_parts(path))


def holds_date(path: str) -> bool:
    """Whether a day of the years 1900 to 2099 stands in a path; digits of a UID do not count."""
    return any(_DATE.search(UID.sub("", part)) for part in _path_parts(path))


def holds_medical_id(path: str) -> bool:
    """Whether five digits or more follow a word such as MRN, patient or Fallnr."""
    return any(_MEDICAL_ID.search(part) for part in _path_parts(path))


def holds_uid(path: str) -> bool:
    """Whether a UID stands in a path, such as `US.1.2.840.113619.2.55.png`: an archive knows it."""
    return UID.search(path) is not None


def _path_parts(path: str) -> tuple[str, ...]:
    plain = PurePosixPath(path)
    return (*plain.parent.parts, plain.stem)


def _has_two_words(part: str) -> bool:
    text = _CAMEL.sub("_", part)
    words = list(_LETTERS.finditer(text))
    return any(
        _may_be_a_name(first.group())
        and _may_be_a_name(second.group())
        and _SEPARATOR.fullmatch(text, first.end(), second.start())
        for first, second in pairwise(words)
    )


def _may_be_a_name(word: str) -> bool:
    return len(word) >= _SHORTEST_NAME and word.lower() not in _TERMS
