"""What a study's steps cost, known before they are done: their share of a bar, and the time left.

All in GFLOP of training, to add up over networks. An optimiser's step and what follows a run's
training are counted as so much arithmetic that takes as long, measured on a CPU core.
"""

import math

from thyro_core.config import Architecture, StudyConfig
from thyro_core.config.networks import REFERENCE_SIDE
from thyro_core.training.networks import NETWORK_FIGURES

_STEP_WORK = 0.25e-6
"""Of the optimiser, for each parameter [GFLOP]: it moves memory, and AlexNet has 57 million."""

_RUN_WORK = 150.0
"""Beginning and end of a run: a network is made, its maps are checked, its tables written."""

_RESULTS = 900.0
_RESULTS_OF_A_RUN = 30.0
"""With the default's resamples."""

REPORT_SHARE = 0.5
"""Of the time of tables and report together, the report's."""


def training_work(config: StudyConfig, architecture: Architecture, images: int) -> float:
    """Of so many images passed in training.

    Args:
        config: of the study.
        architecture: the network.
        images: those of all epochs.
    """
    figures = NETWORK_FIGURES[architecture]
    step = _STEP_WORK * figures.parameters / config.batch_size
    return images * (_pass(config, architecture) + step)


def _pass(config: StudyConfig, architecture: Architecture) -> float:
    """An image's forward and backward pass."""
    return NETWORK_FIGURES[architecture].gflop * (config.image_size / REFERENCE_SIDE) ** 2


def run_work(config: StudyConfig, architecture: Architecture, images: tuple[int, int]) -> float:
    """Of one split x architecture: its training, and its figures and maps.

    Args:
        config: of the study.
        architecture: the network.
        images: of the training part and of the test part.
    """
    n_train, n_test = images
    # A forward pass is a third: two of the training part, and maps of the test part.
    after = (2 / 3 * n_train + 1 / 2 * n_test) * _pass(config, architecture)
    return training_work(config, architecture, config.epochs * n_train) + after + _RUN_WORK


def results_work(config: StudyConfig) -> float:
    """Of the tables that follow the last split, and of the report."""
    runs = config.splits * len(config.architectures)
    resampling = runs * _RESULTS_OF_A_RUN * math.sqrt(config.resamples / 1000)
    return _RESULTS + resampling
