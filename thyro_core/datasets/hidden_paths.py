"""Manifests that go without the paths of their files, which may tell of people.

A path is needed only to make packs anew, which an ingest does, and to compare files with what was
ingested. So nothing else is lost where `uri` is a pseudonym or null.
"""

import json
import re
from collections.abc import Callable

import pyarrow as pa

from thyro_core.config import canonical_json
from thyro_core.datasets.labels import column_key
from thyro_core.datasets.path_names import NOTE_MARK
from thyro_core.store.keys import manifest_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

HidePath = Callable[[str], str | None]
"""What stands in a manifest for a file's URL: its pseudonym; None: there is no key to make one."""

# A URL of a file has a scheme or a path's separators.
_PSEUDONYM = re.compile(r"q[0-9a-f]{32}")

HIDDEN_NOTE = (
    "the paths of the files are not kept (THYRO_KEEP_NAMES=false): packs of another size need this "
    "ingest again, and files cannot be compared with what was ingested"
)


def is_location(uri: str | None) -> bool:
    """Whether a manifest's `uri` is a file's URL, and neither its pseudonym nor null."""
    return uri is not None and not _PSEUDONYM.fullmatch(uri)


def hide_paths(store: Store, manifest_id: str, hide_path: HidePath) -> None:
    """Take the files' URLs out of a manifest that an earlier ingest left them in."""
    table = read_table(store, "images", manifest_id=manifest_id)
    if not any(is_location(uri) for uri in table["uri"].to_pylist()):
        return
    # The summary first: as long as the table holds a URL, another ingest begins here again.
    summary = json.loads(store.read(manifest_key(manifest_id)))
    others = [note for note in summary["notes"] if note != HIDDEN_NOTE and NOTE_MARK not in note]
    summary["notes"] = [*others, HIDDEN_NOTE]
    store.write(manifest_key(manifest_id), canonical_json(summary).encode())
    write_table(store, "images", with_hidden_paths(table, hide_path), manifest_id=manifest_id)


def with_hidden_paths(table: pa.Table, hide_path: HidePath) -> pa.Table:
    """An `images` table without the paths of its files, and of their masks."""
    rows = table.to_pylist()
    for row in rows:
        attributes = json.loads(row["attributes"])
        others = {key: text for key, text in attributes.items() if column_key(key) != "mask"}
        uri = hide_path(row["uri"]) if is_location(row["uri"]) else row["uri"]
        row |= {"uri": uri, "attributes": canonical_json(others)}
    # The order of the rows must not tell that of the names.
    rows.sort(key=lambda row: (row["image_id"] is None, row["image_id"], row["uri"] or ""))
    return schemas.rows_to_table("images", rows)
