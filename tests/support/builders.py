"""Small tables that several tests build."""

import pyarrow as pa

from thyro_core.tables import schemas


def images_table(
    labels: list[int | None],
    groups: list[str] | None = None,
    patients: list[str | None] | None = None,
    included: list[bool] | None = None,
) -> pa.Table:
    """An `images` table with one row a label; image ids are made of the position."""
    rows = []
    for i, label in enumerate(labels):
        row: dict[str, object] = dict.fromkeys(schemas.TABLES["images"].schema.names)
        row |= {
            "manifest_id": "m0",
            "image_id": f"{i:064x}",
            "uri": f"memory://set/{i}.png",
            "group_id": groups[i] if groups else f"g{i}",
            "patient_id": patients[i] if patients else None,
            "label": label,
            "included": included[i] if included else True,
            "pixel_hash": f"x{i}",
        }
        rows.append(row)
    return schemas.rows_to_table("images", rows)
