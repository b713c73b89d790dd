"""The tables: one Arrow schema each, with what a row is and what every column means.

Key columns of the hive path are in the file too, with the types a hive reader infers. Column
names and types are a public promise; raise `SCHEMA_VERSION` when one changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from thyro_core.tables import screening_columns, validation_columns
from thyro_core.tables.cam_columns import CHECK_COLUMNS, FEATURE_COLUMNS, TRUST_COLUMNS
from thyro_core.tables.column_types import BOOL, INT, REAL, STRING, VIEW_COLUMNS
from thyro_core.tables.review_columns import (
    CENTRE_COLUMNS,
    OPERATING_COLUMNS,
    PREDICTIVE_COLUMNS,
    READER_COLUMNS,
    SEEN_COLUMNS,
    SHORTCUT_COLUMNS,
    SUBGROUP_COLUMNS,
)

SCHEMA_VERSION = 2
"""2: `cam_tests` has each feature's test given the score; `cam_trust` the baselines of nodules and
the cascade of weights, and `cam_checks` what they amount to; `splits` says how often an image is
tested and which test sets are the same; `comparisons` has the family that P is adjusted over;
tables `ensemble` and `calibration` are new; `screening` has `prob_raw`; `metrics` has the level of
what counts as one; `operating_points`, `predictive_values`, `subgroups`, `centres`, `readers` and
`shortcuts` are new; `images` has `text_boxes` and `views`, `screening` `text_lines`; `evaluations`,
`evaluation_metrics` and `evaluation_maps` are new."""

_LONG = pa.int64()
_LABEL = pa.int8()
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Table:
    """A registered table: its schema, its hive keys and what one row is."""

    name: str
    hive: tuple[str, ...]
    row: str
    schema: pa.Schema


def _table(
    name: str, hive: tuple[str, ...], row: str, *columns: tuple[str, pa.DataType, str]
) -> Table:
    fields = [pa.field(column, kind, metadata={"doc": doc}) for column, kind, doc in columns]
    metadata = {"table": name, "row": row, "schema_version": str(SCHEMA_VERSION)}
    return Table(name, hive, row, pa.schema(fields, metadata=metadata))


_STUDY = ("study_id", STRING, "Study: hash of everything that changes its results.")
_SPLIT = ("split", INT, "Split number, from 0.")
_ARCHITECTURE = (
    "architecture",
    STRING,
    "Network: resnet18, alexnet, vgg16, inception_v3 or another of torchvision's.",
)
_IMAGE = ("image_id", STRING, "SHA-256 of the file's bytes, hexadecimal.")
_PATIENT = (
    "patient_id",
    STRING,
    "Pseudonym made of the patient's image hashes, never of the id given; null: none was given.",
)
_GROUP = ("group_id", STRING, "Images with one group_id never stand on both sides of a split.")
_TRUTH = ("label", _LABEL, "0 benign, 1 malignant, null unlabelled.")
_SHARE = ("threshold", REAL, "Share of the map's peak above which the regions lie.")
_ALL = ("study_id", "split", "architecture")

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(
            "images",
            ("manifest_id",),
            "an image found",
            ("manifest_id", STRING, "Manifest: hash of contents, labels and ingest rules."),
            (
                "image_id",
                STRING,
                "SHA-256 of the file's bytes, or of that and a place in it; null: no such file.",
            ),
            (
                "uri",
                STRING,
                "Where the file was, or was expected; its pseudonym or null: names are not kept.",
            ),
            _PATIENT,
            _GROUP,
            _TRUTH,
            ("width", INT, "Width [pixels]; null: not decoded."),
            ("height", INT, "Height [pixels]; null: not decoded."),
            ("phash", STRING, "Perceptual hash (64 bit DCT), hexadecimal; null: not decoded."),
            ("pixel_hash", STRING, "SHA-256 of size and grey pixels, hexadecimal."),
            (
                "sharpness",
                REAL,
                "Focus measure, see `thyro_core.imaging.quality`; higher is sharper.",
            ),
            ("overlay_share", REAL, "Share of coloured pixels of the tissue, 0 to 1."),
            ("mean", REAL, "Mean grey level, 0 to 255."),
            ("sd", REAL, "Standard deviation of the grey level, 0 to 255."),
            (
                "text_boxes",
                pa.list_(INT),
                "Around text found (painted over where shown): left, top, right, bottom [pixels].",
            ),
            (
                "views",
                INT,
                "Windows of tissue in it, or in what it is a window of; null: not sought.",
            ),
            ("included", BOOL, "Whether the image takes part in studies."),
            ("reason", STRING, "Why it does not; null for an included image."),
            ("detail", STRING, "The reason's particulars: what was found and what was expected."),
            ("attributes", STRING, "Other columns of labels.csv, JSON; identifying ones dropped."),
            ("file_id", STRING, "SHA-256 of the file's bytes; null: as image_id."),
            ("frame", INT, "Position in its DICOM object, from 0; null: a picture file."),
            (
                "view",
                INT,
                "Position among windows that a DICOM picture was parted into; null: it was not.",
            ),
            ("burned_in", BOOL, "Whether the file says that text is burned into it; null: not."),
            *VIEW_COLUMNS,
        ),
        _table(
            "studies",
            ("study_id",),
            "study",
            _STUDY,
            ("manifest_id", STRING, "Manifest of its images: a key of `images`."),
            (
                "source",
                STRING,
                "Address of the image set at the last start; null: names are not kept.",
            ),
            ("config", STRING, "The study's config, all keys, JSON."),
            ("command", STRING, "What starts it again; SOURCE: names are not kept."),
            ("started", _TIME, "Its first start."),
            ("finished", _TIME, "When its results were complete; null: they are not."),
            (
                "state",
                STRING,
                "running (also one that was killed), finished, failed or interrupted.",
            ),
            ("versions", STRING, "Versions of Python and packages at the last start, JSON."),
        ),
        _table(
            "splits",
            ("study_id",),
            "image x split",
            _STUDY,
            _SPLIT,
            _IMAGE,
            _PATIENT,
            _GROUP,
            _TRUTH,
            (
                "role",
                STRING,
                "train, test or val; unused: in no part of this split (temporal).",
            ),
            ("times_tested", INT, "Splits of the study that test the image; 0: none does."),
            (
                "test_set",
                INT,
                "First split with exactly this split's test images: such splits repeat each other.",
            ),
        ),
        _table(
            "epochs",
            _ALL,
            "epoch",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            ("epoch", INT, "Epoch number, from 1."),
            ("loss", REAL, "Mean focal loss over the epoch's training images."),
            ("val_loss", REAL, "Mean focal loss over the validation images; null: none."),
            ("learning_rate", REAL, "Adam's learning rate in this epoch."),
            ("seconds", REAL, "Wall-clock time of the epoch [s]."),
            ("images_per_second", REAL, "Training images per second."),
        ),
        _table(
            "predictions",
            _ALL,
            "test image",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            _IMAGE,
            _PATIENT,
            _TRUTH,
            ("logit_benign", pa.float32(), "Network output for benign."),
            ("logit_malignant", pa.float32(), "Network output for malignant."),
            ("prob_malignant", REAL, "Softmax probability of malignant, 0 to 1."),
        ),
        _table(
            "cams",
            _ALL,
            "test image x target class",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            _IMAGE,
            ("target_class", _LABEL, "Class the map explains: 0 benign, 1 malignant."),
            ("layer", STRING, "Module whose output the map is made of."),
            ("height", INT, "Height of the map [cells]."),
            ("width", INT, "Width of the map [cells]."),
            (
                "map",
                pa.list_(pa.float16()),
                "Grad-CAM over its peak, 0 to 1, row by row; times peak: the raw map.",
            ),
            ("peak", REAL, "Largest value of the raw map [logits per cell]."),
            ("is_empty", BOOL, "Whether the map is zero everywhere: no evidence found."),
        ),
        _table(
            "cam_features",
            _ALL,
            "test image x share of the peak",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            _IMAGE,
            _TRUTH,
            ("threshold", REAL, "Share of the map's peak above which the region lies."),
            *FEATURE_COLUMNS,
        ),
        _table(
            "cam_trust",
            _ALL,
            "test image, its map of the malignant class",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            _IMAGE,
            _TRUTH,
            *TRUST_COLUMNS,
        ),
        _table(
            "metrics",
            ("study_id",),
            "split x architecture x level x metric",
            _STUDY,
            ("split", INT, "Split number; null: over splits."),
            _ARCHITECTURE,
            (
                "metric",
                STRING,
                "The ten metrics, counts, pooled_* (all splits' test images), train_auc, optimism.",
            ),
            (
                "level",
                STRING,
                "image, patient, group or nodule: what counts as one, by its mean probability.",
            ),
            ("value", REAL, "The metric; over splits: the mean. NaN: undefined."),
            ("sd", REAL, "Standard deviation over splits; null within a split."),
            ("ci_low", REAL, "Lower end of the 95 % interval; NaN or null: there is none."),
            ("ci_high", REAL, "Upper end of the 95 % interval; NaN or null: there is none."),
            ("n", INT, "Images (units of the level) that the metric is of; over splits: splits."),
            ("n_positive", INT, "Malignant ones of them; null for a mean over splits."),
        ),
        _table(
            "comparisons",
            ("study_id",),
            "pair of architectures x metric",
            _STUDY,
            ("split", INT, "Split number (DeLong); null: over splits (Nadeau-Bengio)."),
            ("architecture", STRING, "The architecture in question."),
            ("baseline", STRING, "The one it is compared with."),
            ("metric", STRING, "The metric compared."),
            (
                "family",
                STRING,
                "Question that P is adjusted over: auc, other_metrics or auc_within_splits.",
            ),
            ("test", STRING, "nadeau_bengio or delong."),
            ("difference", REAL, "Architecture minus baseline; over splits: the mean."),
            ("t", REAL, "Test statistic: t of Nadeau-Bengio, z of DeLong. NaN: no test."),
            ("ci_low", REAL, "Lower end of the difference's 95 % interval."),
            ("ci_high", REAL, "Upper end of the difference's 95 % interval."),
            ("p", REAL, "Two-sided P; NaN: no test, for want of spread or of five splits."),
            ("p_adjusted", REAL, "Holm's, over all tests of the family."),
            ("n", INT, "Splits (Nadeau-Bengio) or test images (DeLong)."),
        ),
        _table(
            "ensemble",
            ("study_id",),
            "tested image x architecture",
            _STUDY,
            _ARCHITECTURE,
            _IMAGE,
            _PATIENT,
            _GROUP,
            _TRUTH,
            ("members", INT, "Networks whose split tested it."),
            ("prob_raw", REAL, "Mean over them of the softmax probability of malignant."),
            (
                "prob_calibrated",
                REAL,
                "Calibrated by slope and intercept fitted on other groups; NaN: not possible.",
            ),
            ("prevalence", REAL, "Share malignant of these other groups' images; NaN: as above."),
        ),
        _table(
            "calibration",
            ("study_id",),
            "architecture x probability x metric",
            _STUDY,
            _ARCHITECTURE,
            ("probability", STRING, "raw, calibrated or prevalence: a column of `ensemble`."),
            (
                "metric",
                STRING,
                "auc, brier, skill, nll, slope, intercept or observed_expected.",
            ),
            ("value", REAL, "The figure; NaN: undefined."),
            ("ci_low", REAL, "Lower end of its 95 % interval, patients as units."),
            ("ci_high", REAL, "Upper end of its 95 % interval."),
            ("n", INT, "Images, each once."),
            ("n_positive", INT, "Malignant images."),
            ("n_units", INT, "Patients; groups, where no patient is known."),
        ),
        _table(
            "operating_points",
            ("study_id",),
            "architecture x declared sensitivity",
            _STUDY,
            _ARCHITECTURE,
            *OPERATING_COLUMNS,
        ),
        _table(
            "predictive_values",
            ("study_id",),
            "architecture x measure x prevalence",
            _STUDY,
            _ARCHITECTURE,
            *PREDICTIVE_COLUMNS,
        ),
        _table(
            "subgroups",
            ("study_id",),
            "group of a column of labels.csv x architecture x metric",
            _STUDY,
            _ARCHITECTURE,
            *SUBGROUP_COLUMNS,
        ),
        _table(
            "centres",
            ("study_id",),
            "architecture of a study that gives figures by centre",
            _STUDY,
            _ARCHITECTURE,
            *CENTRE_COLUMNS,
        ),
        _table(
            "readers",
            ("study_id",),
            "reader x architecture",
            _STUDY,
            _ARCHITECTURE,
            *READER_COLUMNS,
        ),
        _table(
            "shortcuts",
            ("study_id",),
            "architecture",
            _STUDY,
            _ARCHITECTURE,
            *SHORTCUT_COLUMNS,
        ),
        _table(
            "cam_tests",
            ("study_id",),
            "feature x architecture x share of the peak",
            _STUDY,
            _ARCHITECTURE,
            _SHARE,
            ("feature", STRING, "Feature of the region, a column of `cam_features`."),
            ("family", STRING, "shape, intensity or texture."),
            ("statistic", REAL, "Mann-Whitney U of the malignant; NaN: a class has no value."),
            (
                "effect_size",
                REAL,
                "Rank-biserial correlation, -1 to 1; above 0: larger in malignant.",
            ),
            ("p", REAL, "Two-sided P."),
            (
                "p_adjusted",
                REAL,
                "P, Holm's correction over all features of this architecture and threshold.",
            ),
            (
                "score_correlation",
                REAL,
                "Spearman's correlation of feature and score (log odds), among the benign alone.",
            ),
            (
                "odds_ratio",
                REAL,
                "Of malignant per SD of the feature's rank, given the score; NaN: not testable.",
            ),
            (
                "p_conditional",
                REAL,
                "Two-sided P given the score, see `thyro_core.explain.conditional`.",
            ),
            ("p_conditional_adjusted", REAL, "Its Holm correction, over the same features."),
            ("n", INT, "Patients with a defined value; by class one image of each is taken."),
            ("median_benign", REAL, "Median over the benign, in the feature's unit."),
            ("median_malignant", REAL, "Median over the malignant, in the feature's unit."),
        ),
        _table(
            "cam_checks",
            ("study_id",),
            "measure of the maps x baseline x architecture",
            _STUDY,
            _ARCHITECTURE,
            *CHECK_COLUMNS,
        ),
        _table(
            "cam_families",
            ("study_id",),
            "family of features x architecture x share of the peak",
            _STUDY,
            _ARCHITECTURE,
            _SHARE,
            ("family", STRING, "shape, intensity or texture."),
            (
                "auc",
                REAL,
                "AUC of a linear discriminant on this family, mean over folds; chance: 0.5.",
            ),
            ("sd", REAL, "Standard deviation of the AUC over the folds of all repeats."),
            ("n", INT, "Images with a region."),
            (
                "difference",
                REAL,
                "Shape's AUC - this family's on the same folds; chance: 0; NaN for shape itself.",
            ),
            (
                "p",
                REAL,
                "Its P by permutation of patients, uncorrected, not given the score: descriptive.",
            ),
        ),
        _table(
            "runs",
            ("study_id",),
            "split x architecture",
            _STUDY,
            _SPLIT,
            _ARCHITECTURE,
            ("status", STRING, "finished or failed."),
            ("error", STRING, "What stopped a failed run; null: nothing."),
            ("seed", _LONG, "The run's own seed."),
            ("device", STRING, "The device it ran on."),
            ("precision", STRING, "fp32 or bf16."),
            ("threads", INT, "Torch threads; part of what makes results repeat bit for bit."),
            ("side", INT, "Side of the network input [pixels]."),
            ("focal_alpha", REAL, "The focal loss weight of malignant that was used."),
            ("n_train", INT, "Training images."),
            ("n_test", INT, "Test images."),
            ("weights_origin", STRING, "Where the starting weights came from; none: random."),
            ("weights_sha256", STRING, "Their SHA-256; null: random."),
            ("weights_missing", STRING, "Layers that started at random all the same."),
            (
                "weights_ignored",
                STRING,
                (
                    "Layers that the file of starting weights holds beyond the network, under "
                    "weights_prefix; null: none, or an earlier version."
                ),
            ),
            ("model_sha256", STRING, "SHA-256 of the trained weights; null: not kept."),
            ("versions", STRING, "Versions of Python and the packages that matter, JSON."),
            ("git_commit", STRING, "The program's commit; null: not run from a checkout."),
            ("host", STRING, "Host name."),
            ("started", _TIME, "Start of the run's last attempt."),
            ("seconds", REAL, "Wall-clock time of the run, attempts that were cut short too [s]."),
            ("gpu_seconds", REAL, "Wall-clock time x GPUs held, of all attempts [s]."),
            ("peak_memory", _LONG, "Peak resident memory of the process [bytes]."),
            ("resumed_epochs", INT, "Epochs taken over from a checkpoint."),
        ),
        _table(
            "screening",
            ("date", "batch_id"),
            "image of a night",
            *screening_columns.IMAGE_COLUMNS,
        ),
        _table(
            "screening_batches",
            ("date",),
            "batch of a night",
            *screening_columns.BATCH_COLUMNS,
        ),
        _table(
            "screening_cams",
            ("date", "batch_id"),
            "referred image x target class",
            *screening_columns.CAM_COLUMNS,
        ),
        _table(
            "feedback",
            ("date",),
            "thing a reader said of an image",
            *screening_columns.FEEDBACK_COLUMNS,
        ),
        _table(
            "evaluations",
            ("evaluation_id",),
            "image of another set",
            *validation_columns.EVALUATION_KEYS,
            *validation_columns.EVALUATION_COLUMNS,
        ),
        _table(
            "evaluation_metrics",
            ("evaluation_id",),
            "figure on another set",
            *validation_columns.EVALUATION_KEYS,
            *validation_columns.FIGURE_COLUMNS,
        ),
        _table(
            "evaluation_maps",
            ("evaluation_id",),
            "measure of the maps on another set x baseline",
            *validation_columns.EVALUATION_KEYS,
            *CHECK_COLUMNS,
        ),
    )
}

STUDY_TABLES = tuple(name for name, table in TABLES.items() if "study_id" in table.hive)
"""The tables that hold a study's rows."""


LATER_COLUMNS: Mapping[str, frozenset[str]] = {
    "evaluations": frozenset({"margins"}),
    "cam_trust": frozenset(
        {"nodule_aspect", "nodule_tallest", "mark_energy_permuted", "mark_energy_mean_map"}
    ),
    "images": frozenset(
        {"text_boxes", "views", "file_id", "frame", "view", "burned_in"}
        | {name for name, *_ in VIEW_COLUMNS}
    ),
    "runs": frozenset({"weights_ignored"}),
    "operating_points": frozenset({"apparent_low", "apparent_high"}),
    "screening": frozenset({"text_lines", "exam_id", "pattern_id", "device", "view_box"}),
    "screening_batches": frozenset({"pooled_batches", "aside", "aside_reasons", "devices"}),
    "shortcuts": frozenset(
        {
            "file_auc",
            "n_images",
            "learner",
            "learner_splits",
            "random_forest_auc",
            "gradient_boosting_auc",
            "logistic_regression_auc",
            *(name for name, _, _ in SEEN_COLUMNS),
        }
    ),
}
"""Columns that joined a table within this `SCHEMA_VERSION`: null where older programs wrote it."""


def with_later_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table's rows with the schema's columns; those that an older version lacks are null.

    Args:
        table: rows as any version of the program wrote them.
        schema: the columns of this version.

    Raises:
        ArrowInvalid: a value does not fit its column's type.
    """
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def conform(name: str, table: pa.Table) -> pa.Table:
    """The table in the registered column order, types and metadata.

    Raises:
        ValueError: a column is missing or unknown, or a value does not fit its type.
    """
    schema = TABLES[name].schema
    missing = sorted(set(schema.names) - set(table.column_names))
    unknown = sorted(set(table.column_names) - set(schema.names))
    if missing or unknown:
        msg = f"table {name}: missing columns {missing}, unknown columns {unknown}"
        raise ValueError(msg)
    return table.select(schema.names).cast(schema).combine_chunks()


def rows_to_table(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Rows as a table of the registered schema; each row must name every column.

    Raises:
        ValueError: a row lacks a column or has an unknown one.
    """
    schema = TABLES[name].schema
    for row in rows:
        if row.keys() != set(schema.names):
            odd = sorted(row.keys() ^ set(schema.names))
            msg = f"table {name}: a row's columns differ from the schema's: {odd}"
            raise ValueError(msg)
    return pa.Table.from_pylist(rows, schema=schema)
