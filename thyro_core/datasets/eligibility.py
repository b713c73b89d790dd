"""What becomes of each file of an image set: included, or excluded for one reason; and its group.

Pure decisions on facts already read: no file is touched here. They depend on contents, labels and
who shares a patient, never on the order, the place or (but for missing files) the names of files.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from thyro_core.config import CLASS_NAMES, IngestConfig
from thyro_core.datasets.layouts import Entry
from thyro_core.errors import beyond
from thyro_core.imaging.near_duplicates import (
    Fingerprint,
    NearDuplicate,
    group_labels,
    near_duplicates,
)
from thyro_core.imaging.tissue import Box

Fault = tuple[str, str]
Pair = tuple[int, int]

REASON_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "the labels name a file that is not there",
        "not_listed": "the labels do not name the file",
        "label_conflict": "the same file or the same pixels are called benign and malignant, or "
        "belong to several patients",
        "excluded_by_specialist": "the list of exclusions names it",
        "undecodable": "it cannot be read as one image",
        "not_ultrasound": "it is a DICOM object of another kind, such as a report or a CT image",
        "too_small": "a side is shorter than the least side",
        "artefact": "too many of its pixels are coloured: callipers, marks or Doppler",
        "blurred": "it is less sharp than the bound",
        "dual_view": "it shows two windows, side by side or above one another",
        "no_nodule": "only the nodule is shown to the network, and where it lies is not known",
        "near_duplicate_conflict": "another image shows the same picture under the other label: "
        "both are left out, as it is not known which label is right",
        "duplicate": "another image with the same pixels takes part",
    }
)
"""Why an image is excluded, and what that means to a reader.

Where several reasons apply, the first in this order is given.
"""

REASONS: tuple[str, ...] = tuple(REASON_MEANINGS)


@dataclass(frozen=True)
class Measures:
    """What decoding tells of an image; the columns of `images` with the same names."""

    width: int
    height: int
    pixel_hash: str
    sharpness: float
    overlay_share: float
    mean: float
    sd: float
    fingerprint: Fingerprint
    text_boxes: tuple[int, ...] = ()
    views: int = 1
    view_box: Box | None = None
    view_mean: float | None = None
    view_sd: float | None = None
    view_sharpness: float | None = None


@dataclass(frozen=True)
class SourceFile:
    """One file of an image set.

    Of a DICOM object that holds several pictures, each is one once it is decoded.

    Attributes:
        entry: what the set says of it.
        image_id: SHA-256 of its bytes, or see `imaging.pictures.Picture`; None: missing or
            unreadable.
        measures: None: not decoded.
        failure: why it could not be read or decoded; None: it could, or was not tried.
        masks: SHA-256 of each of its masks that can be read, by path.
        reason: what the failure is one of `REASONS` for.
        file_id: SHA-256 of the file's bytes; None: `image_id`.
        frame: position in its file, from 0; None: not decoded, or no DICOM object.
        view: position among the windows that its frame was parted into; None: it was not.
        burned_in: whether the file says that names may be drawn into it; None: it does not say.
        nodule_fault: why its nodule, which alone is shown, is not known; None: it is, or all is.
    """

    entry: Entry
    image_id: str | None
    measures: Measures | None = None
    failure: str | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    reason: str = "undecodable"
    file_id: str | None = None
    frame: int | None = None
    view: int | None = None
    burned_in: bool | None = None
    nodule_fault: str | None = None

    @property
    def label(self) -> int | None:
        """0 benign, 1 malignant; None: unlabelled, or labelled in contradicting ways."""
        return None if self.entry.conflict else self.entry.label


@dataclass(frozen=True)
class Judgement:
    """The outcome for a whole set; each list runs along the files given.

    Attributes:
        faults: (reason, detail), or None for an included image.
        patient_ids: pseudonyms; None: no patient given, or no file of theirs is readable.
        group_ids: None: no readable file.
        near_duplicates: included images of each group of near-duplicates that holds at least two,
            largest first.
        copies: pairs of different included images that show the same picture.
        similar: pairs that are only similar, such as next frames of a sweep.
    """

    faults: list[Fault | None]
    patient_ids: list[str | None]
    group_ids: list[str | None]
    near_duplicates: list[int]
    copies: int = 0
    similar: int = 0


def judge(files: Sequence[SourceFile], rules: IngestConfig) -> Judgement:
    """Decide the state and the group of every file.

    * Exact duplicates have the same size and grey pixels. Of those that are otherwise fine one is
      kept: a labelled one first, then one with a patient, then the smallest image_id. If their
      labels contradict, or one is itself listed with contradicting ones, all are
      `label_conflict`; labels of files that the specialist excluded do not count. An exclusion
      is of the file it names.
    * Near-duplicates are sought among images without another fault. Two that show the same
      picture with different labels are both excluded, with their exact copies. Only the pair
      counts, not the whole group; an unlabelled image contradicts nothing, nor does one that is
      only similar.
    * A group is what hangs together by a patient, an exam, the same file, the same pixels or
      near-duplicates. Patients who share an image are one group.

    Args:
        files: in any order.
        rules: bounds for size, overlay, sharpness and near-duplicates.

    Returns:
        One judgement along `files`; it does not depend on their order.
    """
    faults = [list(_own_faults(file, rules)) for file in files]
    copies = _alike([file.measures and file.measures.pixel_hash for file in files])
    for members in copies:
        detail = _contradiction([files[i] for i in members])
        if detail:
            _add(faults, members, "label_conflict", detail)
    patient_ids = pseudonyms(files)
    ranks = [_rank(file, patient) for file, patient in zip(files, patient_ids, strict=True)]
    ranked_copies = [sorted(members, key=lambda i: ranks[i]) for members in copies]
    eligible = [
        faultless
        for members in ranked_copies
        if (faultless := [i for i in members if not faults[i]])
    ]
    eligible.sort(key=lambda members: ranks[members[0]])
    near = _near_pairs([files[members[0]] for members in eligible], rules)
    pairs = [(pair.first, pair.second) for pair in near]
    for pair in near:
        if pair.same_picture:
            _contradict(files, faults, eligible[pair.first], eligible[pair.second])
    for first, *others in eligible:
        original_id = files[first].image_id or ""
        _add(faults, others, "duplicate", f"same pixels as image {original_id[:12]}")
    links = [(eligible[i][0], eligible[j][0]) for i, j in pairs] + _chains(copies)
    is_included = [not faults[members[0]] for members in eligible]
    together = [pair for pair in near if is_included[pair.first] and is_included[pair.second]]
    copies_count = sum(pair.same_picture for pair in together)
    return Judgement(
        faults=[min(several, key=_precedence, default=None) for several in faults],
        patient_ids=patient_ids,
        group_ids=_group_ids(files, links),
        near_duplicates=_sizes(pairs, is_included),
        copies=copies_count,
        similar=len(together) - copies_count,
    )


def pseudonyms(files: Sequence[SourceFile]) -> list[str | None]:
    """A patient id for each file: `p` and 12 digits of the smallest image_id of the patient.

    It cannot be turned back into the id given, and renaming all patients changes nothing. Patients
    whose smallest image is the same one get the same pseudonym; they are one group anyway.
    """
    return _smallest("p", files, [file.entry.patient for file in files])


def exams(files: Sequence[SourceFile]) -> list[str | None]:
    """As `pseudonyms`, of the exam that each DICOM object names."""
    return _smallest("e", files, [file.entry.exam for file in files])


def _smallest(
    prefix: str, files: Sequence[SourceFile], keys: Sequence[Hashable | None]
) -> list[str | None]:
    """For each file, the prefix and the smallest image_id among the files of its key."""
    smallest: dict[Hashable, str] = {}
    for file, key in zip(files, keys, strict=True):
        if key is not None and file.image_id is not None:
            smallest[key] = min(smallest.get(key, file.image_id), file.image_id)
    return [prefix + smallest[key][:12] if key in smallest else None for key in keys]


def _own_faults(file: SourceFile, rules: IngestConfig) -> Iterator[Fault]:
    """What is wrong with a file by itself."""
    entry = file.entry
    if not entry.present:
        yield "missing", "listed, but there is no such file"
    if not entry.is_listed:
        yield "not_listed", "there is such a file, but it is not listed"
    if entry.conflict:
        yield "label_conflict", "listed more than once, with different labels or patients"
    if entry.exclusion_reason is not None:
        yield "excluded_by_specialist", entry.exclusion_reason or "no reason given"
    if file.failure is not None:
        yield file.reason, file.failure
    if file.measures is not None:
        yield from _quality_faults(file.measures, rules)
    if file.nodule_fault is not None:
        yield "no_nodule", file.nodule_fault


def _quality_faults(measures: Measures, rules: IngestConfig) -> Iterator[Fault]:
    if min(measures.width, measures.height) < rules.min_side:
        size = f"{measures.width} x {measures.height} pixels"
        yield "too_small", f"{size}; each side must have at least min_side = {rules.min_side}"
    if measures.overlay_share > rules.overlay_bound:
        percent, bound = 100 * measures.overlay_share, 100 * rules.overlay_bound
        share = f"{beyond(percent, bound, 2)}% of the tissue's pixels are coloured"
        yield "artefact", f"{share}; at most overlay_bound = {bound:g}% may be"
    # Written so that an undefined sharpness (nothing to be sharp) counts as blurred.
    if rules.blur_bound > 0 and not measures.sharpness >= rules.blur_bound:
        sharpness = f"sharpness {beyond(measures.sharpness, rules.blur_bound, 4)}"
        yield "blurred", f"{sharpness}; at least blur_bound = {rules.blur_bound:g} is expected"
    if measures.views > 1 and rules.dual_views == "exclude":
        yield "dual_view", f"{measures.views} windows in it; dual_views = keep would take it"


def _contradiction(members: Sequence[SourceFile]) -> str | None:
    """Why exact copies cannot share one label, if they cannot."""
    candidates = [file for file in members if file.entry.exclusion_reason is None]
    if len(candidates) < 2:
        return None
    if any(file.entry.conflict for file in candidates):
        return "an exact copy is listed with different labels or patients"
    labels = [file.label for file in candidates]
    if 0 in labels and 1 in labels:
        return f"exact copies are labelled benign {labels.count(0)}, malignant {labels.count(1)}"
    return None


def _near_pairs(files: Sequence[SourceFile], rules: IngestConfig) -> list[NearDuplicate]:
    prints = [file.measures.fingerprint for file in files if file.measures is not None]
    return near_duplicates(prints, rules.duplicate_correlation, rules.similar_correlation)


def _contradict(
    files: Sequence[SourceFile],
    faults: list[list[Fault]],
    left: Sequence[int],
    right: Sequence[int],
) -> None:
    """Fault two near-duplicates, each with its copies, if their labels differ."""
    for members, others in ((left, right), (right, left)):
        # The first of the copies is a labelled one, if there is any.
        label, other = files[members[0]].label, files[others[0]].label
        if label is not None and other is not None and label != other:
            image_id = files[others[0]].image_id or ""
            detail = (
                f"near-duplicate of image {image_id[:12]}, which is labelled {CLASS_NAMES[other]}"
            )
            _add(faults, members, "near_duplicate_conflict", detail)


def _rank(file: SourceFile, patient_id: str | None) -> tuple[bool, bool, str, str, str, str]:
    """Order in which exact copies are kept; names decide only where nothing else differs."""
    attributes = repr(sorted(file.entry.attributes.items()))
    return (
        file.label is None,
        patient_id is None,
        file.image_id or "",
        patient_id or "",
        attributes,
        file.entry.name,
    )


def _alike(keys: Sequence[Hashable | None]) -> list[list[int]]:
    """Positions with the same key, one list for each key that is not None."""
    positions: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key is not None:
            positions[key].append(i)
    return list(positions.values())


def _chains(sets: Sequence[Sequence[int]]) -> list[Pair]:
    return [pair for members in sets for pair in pairwise(members)]


def _group_ids(files: Sequence[SourceFile], links: list[Pair]) -> list[str | None]:
    by_patient = _chains(_alike([file.entry.patient for file in files]))
    by_exam = _chains(_alike([file.entry.exam for file in files]))
    by_bytes = _chains(_alike([file.file_id or file.image_id for file in files]))
    group = group_labels(links + by_patient + by_exam + by_bytes, len(files))
    ids = _smallest("g", files, [int(number) for number in group])
    return [group_id if file.image_id else None for file, group_id in zip(files, ids, strict=True)]


def _sizes(pairs: Sequence[Pair], is_included: Sequence[bool]) -> list[int]:
    """Included images of each group; an excluded one may link others, and does not count."""
    groups = _alike([int(number) for number in group_labels(pairs, len(is_included))])
    sizes = [sum(is_included[i] for i in members) for members in groups]
    return sorted((size for size in sizes if size > 1), reverse=True)


def _add(faults: list[list[Fault]], members: Sequence[int], reason: str, detail: str) -> None:
    for i in members:
        faults[i].append((reason, detail))


def _precedence(fault: Fault) -> tuple[int, str]:
    return REASONS.index(fault[0]), fault[1]
