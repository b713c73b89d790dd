"""Rows of `studies` for the studies of versions that did not write it, from their plans."""

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from thyro_core.config import canonical_json
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store
from thyro_core.tables import schemas


def older_studies(store: Store, parts: Mapping[str, Sequence[str]]) -> pa.Table:
    """What is known of studies that have splits and no row of their own: images and config.

    Args:
        store: where they lie.
        parts: keys of the parts of every table.

    Returns:
        Rows of `studies`; what only the table tells is null. A study whose plan is gone or
        damaged has none.
    """
    own, splits = (_study_ids(parts[name]) for name in ("studies", "splits"))
    keys = {study_key(study_id): study_id for study_id in sorted(splits - own)}
    plans = store.read_all(list(keys))
    rows = [row for key, data in plans.items() if (row := _row(keys[key], data)) is not None]
    return schemas.rows_to_table("studies", rows)


def _study_ids(keys: Sequence[str]) -> set[str]:
    folders = (folder for key in keys for folder in key.split("/"))
    return {folder.partition("=")[2] for folder in folders if folder.startswith("study_id=")}


def _row(study_id: str, data: bytes) -> dict[str, object] | None:
    try:
        plan = json.loads(data)
        facts = {"manifest_id": str(plan["manifest_id"]), "config": canonical_json(plan["config"])}
    except (ValueError, TypeError, LookupError):
        return None
    nothing: dict[str, object] = dict.fromkeys(schemas.TABLES["studies"].schema.names)
    return nothing | {"study_id": study_id} | facts
