"""How people write the names of networks and metrics."""

from collections.abc import Mapping
from types import MappingProxyType

ARCHITECTURE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "resnet18": "ResNet18",
        "alexnet": "AlexNet",
        "vgg16": "VGG16",
        "inception_v3": "Inception v3",
    }
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
