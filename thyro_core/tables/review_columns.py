"""Columns of the tables that a reviewer asks for next: operating points, subgroups, readers."""

import pyarrow as pa

from thyro_core.tables.column_types import INT, REAL, STRING

_SIZES = (
    ("n", INT, "Images, each once."),
    ("n_positive", INT, "Malignant images."),
)

OPERATING_COLUMNS = (
    ("declared", REAL, "Sensitivity that the threshold is chosen for."),
    ("threshold", REAL, "Raw probability of the ensemble, chosen on all its out-of-fold scores."),
    ("sensitivity", REAL, "Reached by thresholds chosen on other groups' out-of-fold scores."),
    ("sensitivity_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("sensitivity_high", REAL, "Upper end of the interval."),
    ("specificity", REAL, "Of the same calls."),
    ("specificity_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("specificity_high", REAL, "Upper end of the interval."),
    ("apparent_specificity", REAL, "On the images that the threshold was chosen on."),
    ("apparent_low", REAL, "Lower end of its 95 % interval; each resample has its threshold."),
    ("apparent_high", REAL, "Upper end of the interval."),
    *_SIZES,
    ("n_units", INT, "Patients; groups, where no patient is known."),
)
"""Of `operating_points`, after study and architecture."""

PREDICTIVE_COLUMNS = (
    ("measure", STRING, "ppv or npv."),
    ("prevalence", REAL, "Share of malignant images it is worked out for."),
    ("value", REAL, "At the config's threshold, from sensitivity and specificity over splits."),
    ("ci_low", REAL, "Lower end of the 95 % interval, that of both rates carried over (MOVER)."),
    ("ci_high", REAL, "Upper end of the interval."),
)
"""Of `predictive_values`, after study and architecture."""

SUBGROUP_COLUMNS = (
    ("subgroup", STRING, "Column of labels.csv."),
    ("place", INT, "Place of the group among those of its column, from 0."),
    ("value", STRING, "What the group's images have there: a text, or a range of numbers."),
    ("metric", STRING, "auc, recall or specificity, of the ensemble's out-of-fold scores."),
    ("estimate", REAL, "The metric; NaN: fewer than ten patients of a class."),
    ("ci_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("ci_high", REAL, "Upper end of the interval."),
    *_SIZES,
    ("units_benign", INT, "Patients (groups where none are known) with benign images."),
    ("units_malignant", INT, "Patients (groups where none are known) with malignant images."),
    ("p", REAL, "Of equal AUCs in the column's groups; NaN: no test, or not the AUC."),
    ("p_adjusted", REAL, "Holm's, over the columns of the architecture."),
)
"""Of `subgroups`, after study and architecture."""

READER_COLUMNS = (
    ("reader", STRING, "Column of labels.csv with another reading of the images."),
    ("cut", STRING, "Reading from which on it calls an image malignant; null: it says so itself."),
    ("sensitivity", REAL, "The reader's."),
    ("sensitivity_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("sensitivity_high", REAL, "Upper end of the interval."),
    ("specificity", REAL, "The reader's."),
    ("specificity_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("specificity_high", REAL, "Upper end of the interval."),
    ("network_specificity", REAL, "The ensemble's at the reader's sensitivity, same images."),
    ("difference", REAL, "Specificity of network - reader; NaN: no text of it in both classes."),
    ("difference_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("difference_high", REAL, "Upper end of the interval."),
    ("p", REAL, "Two-sided P of the difference; NaN: no spread."),
    ("p_adjusted", REAL, "Holm's, over all readers and architectures."),
    ("avoided", REAL, "Biopsies of benign images avoided at equal sensitivity, per 1000 images."),
    *_SIZES,
    ("n_unread", INT, "Tested images without a reading, left out."),
)
"""Of `readers`, after study and architecture."""

_LEAD_COLUMNS = (
    (
        "shortcut_auc",
        REAL,
        "Of the learner that each split chose, on {facts}, on the same images.",
    ),
    ("ci_low", REAL, "Lower end of the 95 % interval of `{prefix}shortcut_auc`, by patients."),
    ("ci_high", REAL, "Upper end of the interval."),
    ("lead", REAL, "`auc` - `{prefix}shortcut_auc`."),
    ("lead_low", REAL, "Lower end of its 95 % interval (DeLong, patients as units)."),
    ("lead_high", REAL, "Upper end of the interval."),
    ("p", REAL, "Two-sided P of the lead; NaN: no test."),
    ("p_adjusted", REAL, "Holm's, over the architectures."),
    ("learner", STRING, "The learner that most splits chose."),
    (
        "learner_splits",
        INT,
        "Splits that chose it on their training part; null: it was best on the tested images.",
    ),
    ("random_forest_auc", REAL, "Of the random forest, on the same images."),
    ("gradient_boosting_auc", REAL, "Of gradient boosting, on the same images."),
    ("logistic_regression_auc", REAL, "Of logistic regression, on the same images."),
)


def _lead_columns(prefix: str, facts: str) -> tuple[tuple[str, pa.DataType, str], ...]:
    return tuple(
        (f"{prefix}{name}", kind, text.format(prefix=prefix, facts=facts))
        for name, kind, text in _LEAD_COLUMNS
    )


SEEN_COLUMNS = _lead_columns("seen_", "facts that the network sees, all but the picture's size")
"""Of `shortcuts`: the network against facts that it sees as well."""

_ALL_COLUMNS = _lead_columns("", "eight facts of the file, its size among them")

SHORTCUT_COLUMNS = (
    ("auc", REAL, "Of the network, on tested images, each once, by networks that did not see it."),
    *_ALL_COLUMNS[:8],
    ("n", INT, "Splits."),
    ("n_images", INT, "Tested images."),
    *_ALL_COLUMNS[8:],
    *SEEN_COLUMNS,
    (
        "file_auc",
        REAL,
        "`seen_shortcut_auc` by facts of the whole picture; null: the network sees that as it is.",
    ),
)
"""Of `shortcuts`, after study and architecture."""

CENTRE_COLUMNS = (
    ("n_centres", INT, "Centres with at least ten patients of each class."),
    (
        "auc",
        REAL,
        "Mean over these centres (random effects); NaN: fewer than three, or one's has no error.",
    ),
    ("ci_low", REAL, "Lower end of its 95 % interval."),
    ("ci_high", REAL, "Upper end of the interval."),
    ("tau", REAL, "Standard deviation of the centres' true AUCs on the logit scale."),
    ("tau_low", REAL, "Lower end of its 95 % interval."),
    ("tau_high", REAL, "Upper end of the interval."),
    ("prediction_low", REAL, "Lower end of the 95 % interval of a further centre's true AUC."),
    ("prediction_high", REAL, "Upper end of that interval."),
)
"""Of `centres`, after study and architecture."""
