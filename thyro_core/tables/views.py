"""Ready views over the tables, for queries: what would otherwise take a join that is easily wrong.

An image set that was ingested twice, or that shares images with another, has rows in `images` for
each manifest: only `studies` tells which of them a study is of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from thyro_core.tables.schemas import TABLES, Table


@dataclass(frozen=True)
class View:
    """A view: its columns, described as a table's are, and the statement that it stands for."""

    table: Table
    sql: str


def _make_view(
    name: str,
    row: str,
    *,
    columns: Sequence[tuple[str, str]],
    own: Sequence[tuple[str, pa.DataType, str]],
    sql: str,
) -> View:
    """A view of columns of tables, (table, column) each, and of columns of its own."""
    fields = [TABLES[table].schema.field(column) for table, column in columns]
    fields += [pa.field(column, kind, metadata={"doc": doc}) for column, kind, doc in own]
    return View(Table(name, (), row, pa.schema(fields)), sql)


_IMAGE_COLUMNS = (
    "manifest_id",
    "image_id",
    "uri",
    "patient_id",
    "group_id",
    "label",
    "included",
    "reason",
    "attributes",
)

VIEWS: dict[str, View] = {
    view.table.name: view
    for view in (
        _make_view(
            "images_by_study",
            "image of a study's manifest, each once",
            columns=(("studies", "study_id"), *(("images", name) for name in _IMAGE_COLUMNS)),
            own=(),
            sql="""
            SELECT s.study_id, i.manifest_id, i.image_id, i.uri, i.patient_id, i.group_id, i.label,
                i.included, i.reason, i.attributes
            FROM studies s JOIN images i USING (manifest_id)
            WHERE i.image_id IS NOT NULL
            QUALIFY row_number() OVER (
                PARTITION BY s.study_id, i.image_id ORDER BY i.included DESC, i.uri
            ) = 1
            """,
        ),
        _make_view(
            "predictions_by_image",
            "prediction, with its image",
            columns=(
                ("predictions", "study_id"),
                ("predictions", "split"),
                ("predictions", "architecture"),
                ("predictions", "image_id"),
                ("images", "uri"),
                ("predictions", "patient_id"),
                ("images", "group_id"),
                ("predictions", "label"),
                ("predictions", "prob_malignant"),
            ),
            own=(
                ("call", pa.int8(), "1: prob_malignant reaches the study's threshold; 0: not."),
                (
                    "attributes",
                    pa.string(),
                    "Other columns of labels.csv, JSON; identifying ones dropped.",
                ),
            ),
            sql="""
            SELECT p.study_id, p.split, p.architecture, p.image_id, i.uri, p.patient_id,
                i.group_id, p.label, p.prob_malignant,
                CAST(
                    p.prob_malignant >= CAST(json_extract(s.config, '$.threshold') AS DOUBLE)
                    AS TINYINT
                ) AS call,
                i.attributes
            FROM predictions p
            LEFT JOIN studies s USING (study_id)
            LEFT JOIN images_by_study i USING (study_id, image_id)
            """,
        ),
    )
}
"""The views, by name."""
