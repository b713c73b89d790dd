"""Columns of the tables of a model's evaluation on another image set."""

import pyarrow as pa

EVALUATION_KEYS = (
    ("evaluation_id", pa.string(), "Evaluation: hash of model, image set and settings."),
    ("model_id", pa.string(), "The model, a folder of registry/models."),
)
"""What begins a row of both tables."""

EVALUATION_COLUMNS = (
    ("manifest_id", pa.string(), "The image set: a key of `images`."),
    ("image_id", pa.string(), "SHA-256 of the file's bytes, hexadecimal."),
    (
        "patient_id",
        pa.string(),
        "Pseudonym made of the patient's image hashes; null: none was given.",
    ),
    ("group_id", pa.string(), "Images of one patient, or near-duplicates."),
    ("label", pa.int8(), "0 benign, 1 malignant, null unlabelled."),
    (
        "excluded",
        pa.string(),
        "same_file, same_picture, same_patient (as in the study) or unlabelled; null: scored.",
    ),
    ("training_image", pa.string(), "image_id of the study's image that it shows; null: none."),
    (
        "members",
        pa.list_(pa.float64()),
        "Each member's softmax probability of malignant; null: excluded.",
    ),
    ("prob_raw", pa.float64(), "Mean over the members of that probability; null: excluded."),
    ("prob_calibrated", pa.float64(), "Calibrated by the model's own calibration; null: excluded."),
    ("call", pa.int8(), "1: it reaches the model's threshold; 0: not; null: excluded."),
    (
        "prob_recalibrated",
        pa.float64(),
        "ADAPTED: by slope and intercept fitted on other groups of this set; NaN: not possible.",
    ),
    (
        "call_local",
        pa.int8(),
        "ADAPTED: 1: reaches a threshold chosen on other groups of this set; null: not possible.",
    ),
    (
        "margins",
        pa.list_(pa.float64()),
        "Each member's log odds of malignant; null: excluded, or before they were kept.",
    ),
)
"""Of `evaluations`, after the keys."""

FIGURE_COLUMNS = (
    (
        "level",
        pa.string(),
        "image, patient, group or nodule: what counts as one; set: the whole set.",
    ),
    (
        "adaptation",
        pa.string(),
        "none: nothing fitted on this set; recalibration or threshold: fitted on other groups.",
    ),
    (
        "metric",
        pa.string(),
        "The ten, nll, slope, ppv_at, net_benefit, psi_*, fit_*, routine_*, refer_* (bands) ...",
    ),
    (
        "point",
        pa.float64(),
        "Prevalence of ppv_at and npv_at, threshold probability of net_benefit; null: others.",
    ),
    ("value", pa.float64(), "The figure on this set; NaN: undefined."),
    ("ci_low", pa.float64(), "Lower end of its 95 % interval, patients as units; NaN: none."),
    ("ci_high", pa.float64(), "Upper end of the interval."),
    ("n", pa.int32(), "Units of the level that it is of."),
    ("n_positive", pa.int32(), "Malignant ones; null: of the set."),
    ("n_units", pa.int32(), "Patients; groups, where no patient is known; null: of the set."),
    (
        "internal",
        pa.float64(),
        "The figure on the model's own images, by members whose split tested them; null: none.",
    ),
    ("internal_low", pa.float64(), "Lower end of its 95 % interval."),
    ("internal_high", pa.float64(), "Upper end of the interval."),
    ("internal_n", pa.int32(), "Units of the level there."),
    ("difference", pa.float64(), "value - internal; NaN: not compared."),
    (
        "difference_low",
        pa.float64(),
        "Lower end of its 95 % interval; NaN: fewer than ten patients.",
    ),
    ("difference_high", pa.float64(), "Upper end of the interval."),
    (
        "method",
        pa.string(),
        "delong_independent, newcombe_hybrid, exchangeability (of a promise); null: no test.",
    ),
    (
        "p",
        pa.float64(),
        "Two-sided P of the difference; of a promise one-sided, of as many or more; NaN: none.",
    ),
    (
        "p_adjusted",
        pa.float64(),
        "Holm's, over all tests but those of the AUC by image and of promises, which stay.",
    ),
)
"""Of `evaluation_metrics`, after the keys."""
