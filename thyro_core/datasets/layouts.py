"""Image sets as users have them: what lies at an address, and which label each image has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from thyro_core.config import CLASS_NAMES, IngestConfig
from thyro_core.datasets import ddti, labels
from thyro_core.datasets.dicom_files import DicomFile, ExamNames, find_dicom
from thyro_core.datasets.exclusions import exclusion_reasons
from thyro_core.datasets.file_names import FileNames
from thyro_core.datasets.mask_names import MASK_STEM, assign_masks, is_mask
from thyro_core.datasets.nodule_boxes import BoxCells, box_cells
from thyro_core.datasets.other_files import other_files
from thyro_core.datasets.patient_ids import tied_patients
from thyro_core.datasets.patient_notes import patient_notes
from thyro_core.datasets.table_files import TableFiles
from thyro_core.errors import InputError, amount
from thyro_core.pseudonyms import normal_id
from thyro_core.store.listing import Listing, list_files
from thyro_core.urls import is_archive, redact

Layout = Literal["labels.csv", "folders", "busi", "ddti", "centres"]

_LISTED_NAMES = 5
_TABLE, _WORKBOOK = "labels.csv", "labels.xlsx"
_CLASS_LABELS = {name: label for label, name in enumerate(CLASS_NAMES)}
_CURE = (
    "give a folder with labels.csv (image,label[,patient_id]), with folders benign/ and "
    "malignant/, or BUSI or DDTI as downloaded"
)


@dataclass(frozen=True)
class Entry:
    """One image that is there, or that labels.csv lists.

    Attributes:
        name: Path below the source, with forward slashes.
        uri: The same as a full URL.
        label: 0 benign, 1 malignant, None unlabelled (or in conflict).
        patient: The id as it was given; it stays in memory and is never logged or stored.
        present: Whether the file is there.
        is_listed: False only for a file that labels.csv leaves out.
        conflict: Whether it is labelled twice differently, or given to two patients.
        exclusion_reason: The specialist's reason for leaving it out; None: it is not left out.
        attributes: Other columns of labels.csv, or a DDTI case's tirads, age and sex.
        size: Size of the file [bytes], where known.
        masks: Paths of its nodule masks below the source; none, if one of them is missing.
        boxes: Cells of the columns x, y, w and h of each row that names it, as they stand there.
        fault: Why it cannot be read, as far as the listing shows; None: it is to be tried.
        exam: The exam that a DICOM object names; it stays in memory as the patient's id does.
    """

    name: str
    uri: str
    label: int | None = None
    patient: str | None = field(default=None, repr=False)
    present: bool = True
    is_listed: bool = True
    conflict: bool = False
    exclusion_reason: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    masks: tuple[str, ...] = ()
    boxes: tuple[BoxCells, ...] = ()
    fault: str | None = None
    exam: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ImageSet:
    """All images of a source, sorted by name.

    Attributes:
        source: The source as a full URL.
        layout: How it was read.
        entries: The images; masks are not among them.
        notes: Facts the user must see; none of them names a person.
        has_patients: Whether any image has a patient id.
    """

    source: str
    layout: Layout
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    has_patients: bool


def read_image_set(source: str, rules: IngestConfig, *, name_files: bool = True) -> ImageSet:
    """What an image set holds, before any image is opened.

    Read as the first of these that fits: `labels.csv`; DDTI as downloaded (`1.xml` beside
    `1_1.jpg`); folders `benign/` and `malignant/` at the top or one folder below it, which BUSI
    as downloaded is a case of. `exclusions.csv` is taken into account in each.

    Args:
        source: A folder, or any fsspec URL such as `s3://bucket/prefix`.
        rules: For the TI-RADS categories that DDTI's labels are made of.
        name_files: Whether notes and errors may name files that must be renamed, and folders.

    Raises:
        InputError: nothing readable is there, no image has a label, or a table is at fault.
    """
    if is_archive(source):
        msg = (
            f"{redact(source)}: expected a folder or bucket with labels, found an archive, which "
            "has none; `thyro fetch ADDRESS FOLDER` brings its instances into a folder: put "
            "labels.csv beside them, by AccessionNumber, say"
        )
        raise InputError(msg)
    folder = list_files(source)
    objects = find_dicom(folder, rules)
    folder = replace(folder, by_content=frozenset(objects))
    if not folder.sizes and not folder.links_out and not folder.refusals:
        msg = f"{source}: expected an image set, found no files; {_CURE}"
        raise InputError(msg)
    exams = ExamNames(objects)
    layout, entries, notes = _read_layout(folder, exams, rules)
    _check_labels(folder, entries, name_files)
    entries = _with_headers(entries, objects)
    entries, masks = _attach_masks(folder, entries)
    reasons, exclusion_notes = exclusion_reasons(folder, exams, [entry.name for entry in entries])
    entries = [replace(entry, exclusion_reason=reasons.get(entry.name)) for entry in entries]
    notes += [
        *masks,
        *patient_notes([entry.patient for entry in entries]),
        *exclusion_notes,
        *_ignored_notes(folder, entries, name_files),
    ]
    entries = _with_refusals(folder, entries)
    return ImageSet(
        source=folder.url,
        layout=layout,
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        notes=tuple(notes),
        has_patients=any(entry.patient is not None for entry in entries),
    )


def _with_refusals(folder: Listing, entries: list[Entry]) -> list[Entry]:
    """The entries with the folders that cannot be read, and what the labels name in these."""
    faults = {
        name: f"the folder cannot be read, and nobody knows what it holds: {reason}"
        for name, reason in folder.refusals.items()
    }
    rows = [Entry(name, folder.uri(name), fault=fault) for name, fault in faults.items()]
    for entry in entries:
        parents = [str(path) for path in PurePosixPath(entry.name).parents]
        reason = next((folder.refusals[path] for path in parents if path in faults), None)
        fault = entry.fault if reason is None else f"its folder cannot be read: {reason}"
        rows.append(replace(entry, present=entry.present or fault is not None, fault=fault))
    return rows


_Read = tuple[Layout, list[Entry], list[str]]


def _with_headers(entries: list[Entry], objects: Mapping[str, DicomFile]) -> list[Entry]:
    """The entries with the patients and the exams of their DICOM headers."""
    table_ids = {entry.name: entry.patient for entry in entries}
    names = [entry.name for entry in entries if entry.is_listed and not entry.conflict]
    patients = tied_patients(table_ids, objects, names)
    whole = [replace(entry, patient=patients[entry.name]) for entry in entries]
    for place, entry in enumerate(whole):
        if file := objects.get(entry.name):
            fault = None if file.fault is None else f"its header cannot be read: {file.fault}"
            whole[place] = replace(entry, exam=file.header.study, fault=entry.fault or fault)
    return whole


def _read_layout(folder: Listing, exams: ExamNames, rules: IngestConfig) -> _Read:
    table = folder.find(_TABLE) or folder.find(_WORKBOOK)
    if table is not None:
        return _from_table(folder, table, exams, rules)
    cases = _cases(folder)
    return _from_cases(folder, cases, rules) if cases else _from_folders(folder)


def _entry(folder: Listing, name: str) -> Entry:
    present = name in folder.sizes
    return Entry(name, folder.uri(name), present=present, size=folder.sizes.get(name))


def _without_masks(names: list[str], mask_names: frozenset[str]) -> tuple[list[str], list[str]]:
    """The names that are no masks, known or so named, and a note on the rest."""
    images = [name for name in names if name not in mask_names and not is_mask(name)]
    count = len(names) - len(images)
    return images, [f"{amount(count, 'mask')} not taken for images of the set"] * (count > 0)


def _attach_masks(folder: Listing, entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries with their masks, and notes on those of no image and on missing ones."""
    images = [entry.name for entry in entries]
    others = {name for name in folder.images() if is_mask(name)} - set(images)
    masks, n_lost = assign_masks(others, images, {entry.name: entry.masks for entry in entries})
    fact = "set aside: no image, or several, would fit"
    notes = [f"{amount(n_lost, 'mask')} {fact}"] if n_lost else []
    # What is not in the listing is never opened: it may be a link out of the folder.
    whole = {image: names for image, names in masks.items() if folder.sizes.keys() >= set(names)}
    n_masks = sum(map(len, whole.values()))
    if n_masks:
        notes.append(f"{amount(n_masks, 'mask')} matched to {amount(len(whole), 'image')}")
    if len(masks) > len(whole):
        lacking = amount(len(masks) - len(whole), "image")
        notes.append(f"{lacking} with a mask that is missing: set aside")
    objects = folder.by_content & whole.keys()
    if objects:
        notes.append(
            f"{amount(len(objects), 'DICOM file')} with a mask: set aside, as its frames are cut "
            "to their regions"
        )
    return [
        replace(entry, masks=() if entry.name in objects else whole.get(entry.name, ()))
        for entry in entries
    ], notes


def _from_table(folder: Listing, name: str, exams: ExamNames, rules: IngestConfig) -> _Read:
    table = labels.read_labels(folder.uri(name), folder.read(name), rules)
    finder = TableFiles(
        _TABLE,
        FileNames(folder.sizes, folder.images()),
        exams,
        {row.image for row in table.rows},
        table.has_identifiers,
    )
    rows: dict[str, list[labels.LabelRow]] = {}
    for row in table.rows:
        mask = finder.of_name(row.mask) if row.mask else None
        for file in finder.of_cell(row.image, row.line):
            rows.setdefault(file, []).append(replace(row, image=file, mask=mask))
    entries = [_merge_rows(_entry(folder, image), image_rows) for image, image_rows in rows.items()]
    # An identifier is no address, and must not stand in one.
    entries = [
        replace(entry, uri=folder.uri(name))
        if not entry.present and finder.is_no_path(entry.name)
        else entry
        for entry in entries
    ]
    others = [image for image in folder.images() if image not in rows]
    masks = frozenset(row.mask for image_rows in rows.values() for row in image_rows if row.mask)
    unlisted_images, notes = _without_masks(others, masks)
    entries += [replace(_entry(folder, image), is_listed=False) for image in unlisted_images]
    notes += finder.notes
    if table.dropped_columns:
        notes.append(f"identifying columns dropped: {', '.join(table.dropped_columns)}")
    notes += table.notes
    if table.meanings:
        notes.append(f"labels in {name}: {table.meanings}")
    if table.faults:
        faults = _first_few(table.faults, "; ")
        notes.append(f"{amount(len(table.faults), 'fault')} in labels.csv: {faults}")
    n_repeated = sum(len(image_rows) > 1 for image_rows in rows.values())
    if n_repeated:
        notes.append(f"{amount(n_repeated, 'image')} listed more than once in labels.csv")
    return "labels.csv", entries, notes


def _merge_rows(entry: Entry, rows: list[labels.LabelRow]) -> Entry:
    """One entry of all rows that name an image; an empty cell contradicts nothing."""
    label_values = {row.label for row in rows if row.label is not None}
    patients = set({normal_id(row.patient): row.patient for row in rows if row.patient}.values())
    conflict = len(label_values) > 1 or len(patients) > 1
    return replace(
        entry,
        label=None if conflict else next(iter(label_values), None),
        patient=None if len(patients) > 1 else next(iter(patients), None),
        conflict=conflict,
        attributes=labels.merged_attributes(rows),
        boxes=box_cells([row.attributes for row in rows]),
        masks=tuple(sorted({row.mask for row in rows if row.mask is not None})),
    )


def _from_folders(folder: Listing) -> _Read:
    names, notes = _without_masks(folder.images(), frozenset())
    entries = [_labelled_by_folder(_entry(folder, name)) for name in names]
    n_unlabelled = sum(entry.label is None and not entry.conflict for entry in entries)
    if n_unlabelled:
        fact = "outside benign/ and malignant/ left unlabelled"
        notes.append(f"{amount(n_unlabelled, 'image')} {fact}")
    busi = any(MASK_STEM.fullmatch(PurePosixPath(name).stem) for name in folder.images())
    normal = any("normal" in _folders(name) for name in names)
    return "busi" if busi or normal else "folders", entries, notes


def _folders(name: str) -> list[str]:
    """The two uppermost folders of a path, in lower case."""
    return [part.lower() for part in PurePosixPath(name).parts[:-1][:2]]


def _labelled_by_folder(entry: Entry) -> Entry:
    folder_labels = {_CLASS_LABELS[part] for part in _folders(entry.name) if part in _CLASS_LABELS}
    conflict = len(folder_labels) > 1
    return replace(
        entry, label=folder_labels.pop() if len(folder_labels) == 1 else None, conflict=conflict
    )


def _cases(folder: Listing) -> dict[str, ddti.DdtiCase | None]:
    """DDTI's case files by path without suffix; None for one that cannot be read."""
    names = [name for name in sorted(folder.sizes) if ddti.is_case_file(name)]
    small = [name for name in names if (folder.sizes[name] or 0) <= ddti.MAX_XML_BYTES]
    data = folder.read_all(small)
    cases = {name[: -len(".xml")]: _parse_case(data.get(name)) for name in names}
    return cases if any(cases.values()) else {}


def _parse_case(data: bytes | None) -> ddti.DdtiCase | None:
    try:
        return None if data is None else ddti.parse_case(data)
    except ValueError:
        return None


def _from_cases(
    folder: Listing, cases: Mapping[str, ddti.DdtiCase | None], rules: IngestConfig
) -> _Read:
    names, notes = _without_masks(folder.images(), frozenset())
    entries = [_of_case(_entry(folder, name), cases, rules) for name in names]
    benign, malignant = ", ".join(rules.tirads_benign), ", ".join(rules.tirads_malignant)
    notes.append(
        f"labels made of TI-RADS categories, not of pathology: {benign} benign; "
        f"{malignant} malignant; any other, or none, unlabelled"
    )
    broken_files = sorted(f"{name}.xml" for name, case in cases.items() if case is None)
    if broken_files:
        notes.append(
            f"case files that cannot be read, their images unlabelled: {', '.join(broken_files)}"
        )
    return "ddti", entries, notes


def _of_case(entry: Entry, cases: Mapping[str, ddti.DdtiCase | None], rules: IngestConfig) -> Entry:
    number = ddti.case_of_image(entry.name)
    case = cases.get(str(PurePosixPath(entry.name).with_name(number))) if number else None
    if case is None:
        return replace(entry, patient=number)
    return replace(entry, patient=number, label=case.label(rules), attributes=case.attributes)


def _check_labels(folder: Listing, entries: list[Entry], name_files: bool) -> None:
    if any(entry.label is not None or entry.conflict for entry in entries):
        return
    places = _by_folder(entries, name_files)
    text = f"{amount(len(entries), 'image')} without any ({places})" if entries else "no images"
    msg = f"{folder.url}: expected images with labels, found {text}{_hint(folder)}; {_CURE}"
    raise InputError(msg)


def _by_folder(entries: list[Entry], name_files: bool) -> str:
    """How many images lie in which folder, the fullest first."""
    folders = Counter(str(PurePosixPath(entry.name).parent) for entry in entries)
    if not name_files:
        return f"in {amount(len(folders), 'folder')}"
    largest_first = sorted(
        (-n, "" if name == "." else f" in {name}/") for name, n in folders.items()
    )
    counts = [f"{-n}{place or ' in the folder itself'}" for n, place in largest_first]
    rest = len(counts) - _LISTED_NAMES
    return ", ".join([*counts[:_LISTED_NAMES], *([f"{rest} more folders"] if rest > 0 else [])])


def _hint(folder: Listing) -> str:
    tables = [name for name in folder.sizes if PurePosixPath(name).name.lower() == _TABLE]
    folders = sorted(str(PurePosixPath(name).parent) for name in tables if "/" in name)
    if folders:
        return f", but a {_TABLE} in {folders[0]}/"
    if folder.links_out:
        return f" ({_links(folder)})"
    if folder.refusals:
        return f" ({amount(len(folder.refusals), 'folder')} that cannot be read)"
    others = other_files(folder, frozenset())
    return f" (other files: {others})" if others else ""


def _ignored_notes(folder: Listing, entries: list[Entry], name_files: bool) -> list[str]:
    others = other_files(folder, frozenset(entry.name for entry in entries))
    notes = [f"files not taken as images: {others}"] if others else []
    if folder.n_hidden:
        notes.append(
            f"{amount(folder.n_hidden, 'file')} left out, hidden or of a system (such as @eaDir)"
        )
    if folder.links_out:
        notes.append(f"{_links(folder)}: left out")
    if folder.no_files:
        notes.append(
            f"{amount(folder.no_files, 'entry', 'entries')} left out that are no files: pipes, "
            "sockets, links to nothing or to folders; remove them, or put the files back"
        )
    if folder.odd_names:
        names = f": {_first_few(folder.odd_names, ', ')}" if name_files else ""
        files = amount(len(folder.odd_names), "file")
        notes.append(f"{files} left out for names that are no UTF-8{names}; rename them")
    return notes


def _first_few(phrases: Sequence[str], separator: str) -> str:
    more = ["..."] if len(phrases) > _LISTED_NAMES else []
    return separator.join([*phrases[:_LISTED_NAMES], *more])


def _links(folder: Listing) -> str:
    links = amount(folder.links_out, "link")
    return f"{links} out of the folder, where the files themselves should be"
