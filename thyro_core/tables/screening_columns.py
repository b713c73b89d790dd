"""Columns of the screening tables, with what they mean.

The key `date` is a whole number, 20261125, and no `2026-11-25`: DuckDB turns such a folder name
into a date, pyarrow into a text, and a number into a number all readers do.
"""

import pyarrow as pa

from thyro_core.tables.column_types import BOOL, INT, REAL, STRING, VIEW_BOX

Column = tuple[str, pa.DataType, str]


KEYS: tuple[Column, ...] = (
    ("date", INT, "The night, as a number: 20261125 is 25 November 2026."),
    ("batch_id", STRING, "Night's batch: hash of its address and the model."),
)
"""Hive keys; `screening_batches` has the first one alone."""

_MODEL: Column = ("model_id", STRING, "Model that scored, in the registry.")
_BATCH: Column = ("batch", STRING, "Address of the batch, without passwords and signatures.")
_IMAGE: Column = (
    "image_id",
    STRING,
    "Hash of the file, of a frame's number, a view's place, a copy's path with it; or the path's.",
)

IMAGE_COLUMNS: tuple[Column, ...] = (
    *KEYS,
    _BATCH,
    _IMAGE,
    (
        "file_id",
        STRING,
        "SHA-256 of the file's bytes, as `sha256sum` gives it; null: not readable, empty.",
    ),
    (
        "path_id",
        STRING,
        "Hash of the file's address, keyed by the store; null: before paths were noted.",
    ),
    (
        "picture_id",
        STRING,
        "Hash of the decoded pixels, or of what is not decoded; null: no contents, or not noted.",
    ),
    (
        "pattern_id",
        STRING,
        "Hash of the decoded pixels however they are turned or mirrored; null: as of picture_id.",
    ),
    ("frame", INT, "Frame of the file, from 0."),
    ("name", STRING, "Path below the batch; null unless THYRO_KEEP_NAMES: names tell of people."),
    _MODEL,
    (
        "status",
        STRING,
        "scored, rejected (no image for this model), failed (not readable) or copy (`copy_of`).",
    ),
    (
        "copy_of",
        STRING,
        "image_id of the row, of this model, that has the same picture; null: this is no copy.",
    ),
    (
        "reason",
        STRING,
        "Why it, or what it is a copy of, is not scored, or goes to review; null: nothing.",
    ),
    ("detail", STRING, "The reason's particulars, and how the picture was read; null: as usual."),
    ("reading_id", STRING, "Hash of the rules and decoder versions it was read under."),
    (
        "prob_malignant",
        REAL,
        "Calibrated probability; by a card of version 1: members' mean, scaled. Null: not scored.",
    ),
    (
        "prob_raw",
        REAL,
        "Mean over members of their softmax probability; null: not scored, or before version 2.",
    ),
    ("sd", REAL, "Standard deviation over members (n - 1) of each one's calibrated probability."),
    ("band", STRING, "refer, review, routine, not scored or copy."),
    ("rank_key", REAL, "Place in the worklist, highest first: band, then probability."),
    ("distance", REAL, "Embedding distance from the training set; null: not embedded."),
    ("burned_in", BOOL, "Whether the file says that text is burned into it; null: says nothing."),
    (
        "text_lines",
        INT,
        "Lines of text found in the picture, painted over where it is shown; null: not sought.",
    ),
    (
        "exam_id",
        STRING,
        "Exam: e and the study's keyed pseudonym, or f and a hash of the folder; null: not noted.",
    ),
    ("patient_id", STRING, "Keyed pseudonym of the patient; null: none was given."),
    (
        "device",
        STRING,
        "Maker and family of the device, of a closed list, or other; null: not named, not noted.",
    ),
    ("width", INT, "Width [pixels]; null: not decoded."),
    ("height", INT, "Height [pixels]; null: not decoded."),
    ("mean", REAL, "Mean grey level, 0 to 255."),
    ("grey_sd", REAL, "Standard deviation of the grey level, 0 to 255."),
    ("sharpness", REAL, "Focus measure, see `thyro_core.imaging.quality`; higher is sharper."),
    ("overlay_share", REAL, "Share of coloured pixels of the tissue, 0 to 1."),
    VIEW_BOX,
)
"""Columns of `screening`."""

CAM_COLUMNS: tuple[Column, ...] = (
    *KEYS,
    _IMAGE,
    _MODEL,
    ("target_class", pa.int8(), "Class the map explains: 0 benign, 1 malignant."),
    ("layer", STRING, "Module whose output the map is made of."),
    ("height", INT, "Height of the map [cells]."),
    ("width", INT, "Width of the map [cells]."),
    (
        "map",
        pa.list_(pa.float16()),
        "Members' mean Grad-CAM over its peak, 0 to 1, row by row; times peak: the raw map.",
    ),
    ("peak", REAL, "Largest value of the raw map [logits per cell]."),
    ("is_empty", BOOL, "Whether the map is zero everywhere: no evidence found."),
)
"""Columns of `screening_cams`."""

BATCH_COLUMNS: tuple[Column, ...] = (
    KEYS[0],
    KEYS[1],
    _BATCH,
    _MODEL,
    ("rules", STRING, "Rules of quality and banding, JSON."),
    ("received", INT, "Images of this night's batch: scored + rejected + failed + copies."),
    ("files", INT, "Files the last run listed: those it read, known and late ones."),
    (
        "known",
        INT,
        "Files the last run passed over: met before, and scored, or refused as `reading_id`.",
    ),
    ("late", INT, "Files the last run could not read whole; the next run tries them again."),
    (
        "aside",
        INT,
        "Entries listed beside these files, set aside by their names; null: not counted yet.",
    ),
    ("aside_reasons", STRING, "Why, with the number of each kind; empty: there were none."),
    ("scored", INT, "Images scored."),
    ("rejected", INT, "Images refused by a quality rule."),
    ("failed", INT, "Images that could not be decoded."),
    ("copies", INT, "Images of a picture that another row has; null: before they were counted."),
    ("refer", INT, "Scored images in the band refer."),
    ("review", INT, "Scored images in the band review."),
    ("routine", INT, "Scored images in the band routine."),
    ("psi_score", REAL, "Population stability index of the probability against the reference."),
    ("ks_score", REAL, "Kolmogorov-Smirnov distance of the probability."),
    ("ks_score_p", REAL, "Its two-sided P."),
    ("psi_mean", REAL, "Population stability index of the mean grey level."),
    ("psi_sharpness", REAL, "Population stability index of the sharpness."),
    ("ks_mean", REAL, "Kolmogorov-Smirnov distance of the mean grey level."),
    ("ks_sharpness", REAL, "Kolmogorov-Smirnov distance of the sharpness."),
    ("mmd", REAL, "Maximum mean discrepancy of the embeddings."),
    ("mmd_p", REAL, "Its P, by permutation."),
    (
        "pooled_batches",
        pa.int32(),
        "Batches that the figures but `share_rejected` are of: a small one's, and those before it.",
    ),
    ("share_rejected", REAL, "Share of the received files of which no image is scored."),
    (
        "devices",
        STRING,
        "Devices of the files as in `screening`, with their numbers; empty: none is named.",
    ),
    ("breaches", STRING, "Drift figures past their bound, comma-separated; empty: none."),
    ("seconds", REAL, "Wall-clock time of the last run [s]."),
)
"""Columns of `screening_batches`; a drift figure that was not computed is null."""

FEEDBACK_COLUMNS: tuple[Column, ...] = (
    KEYS[0],
    KEYS[1],
    ("feedback_id", STRING, "Hash of what was said: the same said twice is one row."),
    _IMAGE,
    _MODEL,
    (
        "band",
        STRING,
        "Band of the row when it was said, as in `screening`.",
    ),
    ("who", STRING, "The reader: initials or login, as given."),
    (
        "said_at",
        pa.timestamp("us", tz="UTC"),
        "When: by the server, or by the browser of a lone file.",
    ),
    (
        "what",
        STRING,
        "seen, unseen, agree, disagree (with the band), withdraw (either), or comment.",
    ),
    ("comment", STRING, "The comment's words; null: none."),
)
"""Columns of `feedback`: opinions, given with the score in sight; none replaces another."""
