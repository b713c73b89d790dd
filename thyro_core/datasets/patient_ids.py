"""Which images are of one patient: by the table's ids, and by those of DICOM headers."""

from collections.abc import Collection, Mapping

from thyro_core.datasets.dicom_files import DicomFile
from thyro_core.datasets.patient_notes import is_placeholder
from thyro_core.imaging.near_duplicates import group_labels
from thyro_core.pseudonyms import normal_id

_Node = tuple[str, str]


def tied_patients(
    table_ids: Mapping[str, str | None],
    objects: Mapping[str, DicomFile],
    names: Collection[str],
) -> dict[str, str | None]:
    """The patient of each image: of the table, else of the header.

    Where the header speaks for some images, its id ties the others that bear it too, whatever
    the table calls them. Where the table names all patients, the header ties nothing: objects
    without identity often bear one id for all.

    Args:
        table_ids: of every image, None where the table gives none.
        objects: those that are DICOM.
        names: the images that the table lists, without contradiction.

    Returns:
        Ids; of those that are one patient, one.
    """
    header_ids = {name: file.patient for name, file in objects.items()}
    nodes: dict[str, _Node] = {}
    links: list[tuple[_Node, _Node]] = []
    spellings: dict[_Node, str] = {}
    for name, text in table_ids.items():
        header_id = header_ids.get(name)
        if text is not None:
            nodes[name] = node = ("table", normal_id(text))
            spellings[node] = min(text, spellings.get(node, text))
        elif header_id is not None:
            nodes[name] = node = ("header", header_id)
            spellings[node] = header_id
            links.append((node, ("table", objects[name].header.patient or "")))
    speaking = {header_ids.get(name) for name in names if table_ids[name] is None}
    # A table may name some of a patient's images by the header's id, and others by its own.
    for file in objects.values():
        node = ("table", file.header.patient or "")
        if node in spellings:
            speaking.add(file.patient)
            spellings.setdefault(("header", file.patient or ""), file.patient or "")
            links.append((("header", file.patient or ""), node))
    for name in names:
        header_id = header_ids.get(name)
        if header_id in speaking and header_id is not None and not is_placeholder(header_id):
            links.append((nodes[name], ("header", header_id)))
    places = {node: place for place, node in enumerate(spellings)}
    pairs = [(places[a], places[b]) for a, b in links if a in places and b in places]
    groups = dict(zip(places, group_labels(pairs, len(places)).tolist(), strict=True))
    node_of_group: dict[int, _Node] = {}
    for node in sorted(places, key=lambda node: (node[0] != "table", spellings[node])):
        node_of_group.setdefault(groups[node], node)
    return {
        name: spellings[node_of_group[groups[nodes[name]]]] if name in nodes else None
        for name in table_ids
    }
