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
        "sensitivity_least": 92,
        "sensitivity_most": 95,
        "specificity_least": 92,
        "specificity_most": 98,
        "apparent_least": 93,
        "apparent_most": 99,
        # Months of 30 nights in which nothing changed, and those with a false alarm of drift.
        "months": 84,
        "months_with_alarm": 6,
        "stills": 6,
        "months_without": 30,
        "months_without_with_alarm": 28,
    }
)
"""Name -> figure; a test holds each against the tables of the benchmarks."""

SIMULATED_SPLITS: Mapping[int, Mapping[str, float]] = MappingProxyType(
    {
        # Of a hundred: the least and the most over all AUCs and images a patient; of bands the
        # least at a single place.
        10: MappingProxyType(
            {
                "splits": 10,
                "studies": 200,
                "mean_least": 92,
                "mean_most": 97,
                "part_least": 93,
                "part_most": 99,
                "predictive_least": 92,
                "predictive_most": 98,
                "roc_least": 89,
                "pr_least": 85,
                "benefit_least": 88,
            }
        ),
        5: MappingProxyType(
            {
                "splits": 5,
                "studies": 100,
                "mean_least": 91,
                "mean_most": 98,
                "part_least": 90,
                "part_most": 99,
                "predictive_least": 93,
                "predictive_most": 98,
                "roc_least": 86,
                "pr_least": 80,
                "benefit_least": 86,
            }
        ),
    }
)
"""Hold-outs of a simulated study -> name -> figure, held against the benchmarks as well."""


def nearest_simulated(splits: int) -> int:
    """Of the numbers of splits that were simulated the one nearest to a study's.

    Args:
        splits: the study's.
    """
    return min(SIMULATED_SPLITS, key=lambda number: abs(number - splits))
