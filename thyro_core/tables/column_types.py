"""The Arrow types that most columns of the tables have, and columns that several tables share."""

import pyarrow as pa

STRING = pa.string()
INT = pa.int32()
REAL = pa.float64()
BOOL = pa.bool_()

VIEW_BOX = (
    "view_box",
    pa.list_(INT),
    "What the network sees of it: left, top, right, bottom [pixels]; null: all of it.",
)

VIEW_COLUMNS = (
    VIEW_BOX,
    (
        "view_mean",
        REAL,
        "Mean grey level of what the network sees; null: it sees the picture as it is.",
    ),
    ("view_sd", REAL, "Standard deviation of its grey level; null likewise."),
    ("view_sharpness", REAL, "Its focus measure; null likewise."),
)
"""Of `images`, on the part that a network sees."""
