"""What this program's benchmarks measured on simulated studies, as far as pages quote it."""

from collections.abc import Mapping
from types import MappingProxyType

SIMULATION_FIGURES: Mapping[str, float] = MappingProxyType(
    {
        # The image sets of the coverage of intervals.
        "images": 508,
        "malignant": 90,
        "auc_from": 0.85,
        "auc_to": 0.998,
        # Of a hundred: the least and the most over all AUCs and images a patient.
        "part_least": 93,
        "part_most": 99,
        "sensitivity_least": 92,
        "sensitivity_most": 95,
        "specificity_least": 92,
        "specificity_most": 98,
        "apparent_least": 93,
        "apparent_most": 99,
        # Bands of precision-recall curves at recalls of 0.05 to 0.1, of a hundred.
        "pr_auc": 0.85,
        "pr_least": 52,
        "pr_most": 85,
        # At single places elsewhere, and of ROC curves.
        "pr_elsewhere_least": 81,
        "roc_least": 87,
        # Months of 30 nights in which nothing changed, and those with a false alarm of drift.
        "months": 84,
        "months_with_alarm": 6,
        "stills": 6,
        "months_without": 30,
        "months_without_with_alarm": 28,
    }
)
"""Name -> figure; a test holds each against the tables of the benchmarks."""
