"""Columns of the tables that a reviewer asks for next: operating points, subgroups, readers."""

import pyarrow as pa

_STRING = pa.string()
_INT = pa.int32()
_REAL = pa.float64()

_SIZES = (
    ("n", _INT, "Images, each once."),
    ("n_positive", _INT, "Malignant images."),
)

OPERATING_COLUMNS = (
    ("declared", _REAL, "Sensitivity that the threshold is chosen for."),
    ("threshold", _REAL, "Raw probability of the ensemble, chosen on all its out-of-fold scores."),
    ("sensitivity", _REAL, "Reached by thresholds chosen on other groups' out-of-fold scores."),
    ("sensitivity_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("sensitivity_high", _REAL, "Upper end of the interval."),
    ("specificity", _REAL, "Of the same calls."),
    ("specificity_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("specificity_high", _REAL, "Upper end of the interval."),
    ("apparent_specificity", _REAL, "On the images that the threshold was chosen on."),
    ("apparent_low", _REAL, "Lower end of its 95 % interval; each resample has its threshold."),
    ("apparent_high", _REAL, "Upper end of the interval."),
    *_SIZES,
    ("n_units", _INT, "Patients; groups, where no patient is known."),
)
"""Of `operating_points`, after study and architecture."""

PREDICTIVE_COLUMNS = (
    ("measure", _STRING, "ppv or npv."),
    ("prevalence", _REAL, "Share of malignant images it is worked out for."),
    ("value", _REAL, "At the config's threshold, from sensitivity and specificity over splits."),
    ("ci_low", _REAL, "Lower end of the 95 % interval, that of both rates carried over (MOVER)."),
    ("ci_high", _REAL, "Upper end of the interval."),
)
"""Of `predictive_values`, after study and architecture."""

SUBGROUP_COLUMNS = (
    ("subgroup", _STRING, "Column of labels.csv."),
    ("place", _INT, "Place of the group among those of its column, from 0."),
    ("value", _STRING, "What the group's images have there: a text, or a range of numbers."),
    ("metric", _STRING, "auc, recall or specificity, of the ensemble's out-of-fold scores."),
    ("estimate", _REAL, "The metric; NaN: fewer than ten patients of a class."),
    ("ci_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("ci_high", _REAL, "Upper end of the interval."),
    *_SIZES,
    ("units_benign", _INT, "Patients (groups where none are known) with benign images."),
    ("units_malignant", _INT, "Patients (groups where none are known) with malignant images."),
    ("p", _REAL, "Of equal AUCs in the column's groups; NaN: no test, or not the AUC."),
    ("p_adjusted", _REAL, "Holm's, over the columns of the architecture."),
)
"""Of `subgroups`, after study and architecture."""

READER_COLUMNS = (
    ("reader", _STRING, "Column of labels.csv with another reading of the images."),
    ("cut", _STRING, "Reading from which on it calls an image malignant; null: it says so itself."),
    ("sensitivity", _REAL, "The reader's."),
    ("sensitivity_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("sensitivity_high", _REAL, "Upper end of the interval."),
    ("specificity", _REAL, "The reader's."),
    ("specificity_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("specificity_high", _REAL, "Upper end of the interval."),
    ("network_specificity", _REAL, "The ensemble's at the reader's sensitivity, same images."),
    ("difference", _REAL, "Specificity of network - reader; NaN: no text of it in both classes."),
    ("difference_low", _REAL, "Lower end of its 95 % interval, patients as units."),
    ("difference_high", _REAL, "Upper end of the interval."),
    ("p", _REAL, "Two-sided P of the difference; NaN: no spread."),
    ("p_adjusted", _REAL, "Holm's, over all readers and architectures."),
    ("avoided", _REAL, "Biopsies of benign images avoided at equal sensitivity, per 1000 images."),
    *_SIZES,
    ("n_unread", _INT, "Tested images without a reading, left out."),
)
"""Of `readers`, after study and architecture."""

SHORTCUT_COLUMNS = (
    ("auc", _REAL, "Of the network, on tested images, each once, by networks that did not see it."),
    (
        "shortcut_auc",
        _REAL,
        "Of the learner that each split chose, on seven facts of the file, on the same images.",
    ),
    ("ci_low", _REAL, "Lower end of the 95 % interval of `shortcut_auc`, patients as units."),
    ("ci_high", _REAL, "Upper end of the interval."),
    ("lead", _REAL, "`auc` - `shortcut_auc`."),
    ("lead_low", _REAL, "Lower end of its 95 % interval (DeLong, patients as units)."),
    ("lead_high", _REAL, "Upper end of the interval."),
    ("p", _REAL, "Two-sided P of the lead; NaN: no test."),
    ("p_adjusted", _REAL, "Holm's, over the architectures."),
    ("n", _INT, "Splits."),
    ("n_images", _INT, "Tested images."),
    ("learner", _STRING, "The learner that most splits chose."),
    (
        "learner_splits",
        _INT,
        "Splits that chose it on their training part; null: it was best on the tested images.",
    ),
    ("random_forest_auc", _REAL, "Of the random forest, on the same images."),
    ("gradient_boosting_auc", _REAL, "Of gradient boosting, on the same images."),
    ("logistic_regression_auc", _REAL, "Of logistic regression, on the same images."),
)
"""Of `shortcuts`, after study and architecture."""

CENTRE_COLUMNS = (
    ("n_centres", _INT, "Centres with at least ten patients of each class."),
    (
        "auc",
        _REAL,
        "Mean over these centres (random effects); NaN: fewer than three, or one's has no error.",
    ),
    ("ci_low", _REAL, "Lower end of its 95 % interval."),
    ("ci_high", _REAL, "Upper end of the interval."),
    ("tau", _REAL, "Standard deviation of the centres' true AUCs on the logit scale."),
    ("tau_low", _REAL, "Lower end of its 95 % interval."),
    ("tau_high", _REAL, "Upper end of the interval."),
    ("prediction_low", _REAL, "Lower end of the 95 % interval of a further centre's true AUC."),
    ("prediction_high", _REAL, "Upper end of that interval."),
)
"""Of `centres`, after study and architecture."""
