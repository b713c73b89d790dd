"""How people write the names of networks and metrics."""

from collections.abc import Mapping
from types import MappingProxyType

from thyro_core.training.networks import NETWORK_FIGURES

ARCHITECTURE_NAMES: Mapping[str, str] = MappingProxyType(
    {name: figures.display_name for name, figures in NETWORK_FIGURES.items()}
)
"""Every architecture of the config, as its authors write it."""

METRIC_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "auc": "AUC",
        "accuracy": "Accuracy",
        "recall": "Sensitivity (recall)",
        "precision": "Precision (PPV)",
        "f1": "F1 score",
        "specificity": "Specificity",
        "npv": "NPV",
        "average_precision": "Average precision",
        "brier": "Brier score",
        "ece": "Calibration error (ECE)",
    }
)
"""Every metric, in the order of tables and reports."""
