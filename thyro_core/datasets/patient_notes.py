"""What the patient ids of a set are worth: placeholders, and one id for many images."""

import re
from collections import Counter
from collections.abc import Sequence

from thyro_core.errors import amount

_PLACEHOLDERS = frozenset(
    {"na", "nan", "nil", "none", "null", "missing", "empty", "unknown", "unk", "unspecified"}
    | {"anon", "anonym", "anonymous", "anonymised", "anonymized", "deidentified", "removed"}
    | {"hidden", "redacted", "test", "tbd", "noid", "nopatient", "notavailable", "notknown"}
    | {"id", "patient", "pat", "patientid", "0", "x", "xx", "00"}
)
"""Without case, blanks and punctuation. Besides, what is nothing but punctuation, or one letter or
digit three times and more (xxx, 0000, 9999), counts as one."""

_ONE_SIGN = re.compile(r"(.)\1{2,}")
_LARGE_SHARE = 1 / 3
_LARGE_IMAGES = 5


def patient_notes(patients: Sequence[str | None]) -> list[str]:
    """Facts on the patient ids of all images; an id that may be real is not repeated.

    Args:
        patients: an id for each image; None: it has none.
    """
    risk = "images of one patient may stand on both sides of a split"
    lacking = sum(patient is None for patient in patients)
    if lacking == len(patients):
        return [f"no patient ids were given: {risk}"]
    counts = Counter(patient for patient in patients if patient is not None)
    notes = [
        f"{amount(number, 'image')} with the patient id {patient!r}, which looks like a "
        "placeholder: they count as one patient; leave the cell empty where none is known"
        for patient, number in sorted(counts.items())
        if number > 1 and is_placeholder(patient)
    ]
    largest, number = counts.most_common(1)[0]
    is_large = number >= _LARGE_SHARE * len(patients) and number >= _LARGE_IMAGES
    if is_large and not is_placeholder(largest) and len(counts) > 1:
        notes.append(
            f"{number} of {len(patients)} images have one and the same patient id: they are never "
            "split; check whether the id stands for several patients"
        )
    if lacking:
        notes.append(f"{amount(lacking, 'image')} of {len(patients)} without a patient id: {risk}")
    return notes


def is_placeholder(patient: str) -> bool:
    """Whether a patient id looks like what people write where they know none."""
    signs = re.sub(r"[\W_]+", "", patient).casefold()
    return not signs or signs in _PLACEHOLDERS or _ONE_SIGN.fullmatch(signs) is not None
