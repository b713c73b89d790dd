"""How much memory a split job takes, on a GPU or without one: estimates on the safe side.

They are made before it runs. Ray shares a GPU out by fractions and never looks at its memory, and
a node's own memory only where a job says what it needs. A job holds what its most expensive
architecture needs: weights, gradients and Adam's two moments, and for each image of a batch what
the forward pass keeps for the backward one, twice, because convolutions want room to work in. The
pack lies there too. The figures per image are sums over torch's saved tensors in fp32, for whole
networks; bf16 needs less. No GPU was at hand to compare its estimate with; that for jobs without
one was compared with jobs of each network in bf16 and fp32.
"""

from thyro_core.config import Architecture, StudyConfig
from thyro_core.training.networks import NETWORK_FIGURES

_BYTES_PER_PARAMETER = 28
"""Weight, gradient and Adam's two averages, and all but the gradient once more: what a recorded
step is compared with (`training.steps`)."""
_ROOM = 2.0
_CONTEXT = 1.5e9
"""CUDA's own memory in each process, and its libraries' [bytes]."""

_PROCESS = 4e8
"""A worker process without a GPU before it has a network [bytes]."""
_CPU_BYTES_PER_PARAMETER = 20
_CPU_ROOM = 1.7
"""Without a GPU, in fp32; with the copies of the weights that bf16 takes, it covers that too."""

_REFERENCE_SIDE = 224
_USABLE = 0.95


def job_gpu_bytes(config: StudyConfig, images: int) -> int:
    """Memory that a split job of a study takes on a GPU at most [bytes].

    Args:
        config: the study; its architectures, batch size and image size count.
        images: images of the pack.
    """
    return round(max(_gpu_bytes(config, name, images) for name in config.architectures))


def job_cpu_bytes(config: StudyConfig) -> int:
    """Memory that a split job of a study takes on its node at most, without a GPU [bytes].

    Packs do not count: they are memory maps, which all jobs of a node share.

    Args:
        config: the study; its architectures, batch size and image size count.
    """
    return round(max(_cpu_bytes(config, name) for name in config.architectures))


def _cpu_bytes(config: StudyConfig, architecture: Architecture) -> float:
    batch = (
        config.batch_size
        * NETWORK_FIGURES[architecture].activation_bytes
        * _area(config)
        * _CPU_ROOM
    )
    return _PROCESS + NETWORK_FIGURES[architecture].parameters * _CPU_BYTES_PER_PARAMETER + batch


def _area(config: StudyConfig) -> float:
    """The images' area, as a share of the paper's."""
    return (config.image_size / _REFERENCE_SIDE) ** 2


def _gpu_bytes(config: StudyConfig, architecture: Architecture, images: int) -> float:
    batch = (
        config.batch_size * NETWORK_FIGURES[architecture].activation_bytes * _area(config) * _ROOM
    )
    pack = images * config.side(architecture) ** 2
    return _CONTEXT + NETWORK_FIGURES[architecture].parameters * _BYTES_PER_PARAMETER + batch + pack


def jobs_that_fit(gpu_bytes: int | None, job_bytes: int) -> int:
    """How many jobs a GPU holds at once; one, if its memory is not known or too small by estimate.

    Args:
        gpu_bytes: the GPU's memory; None: unknown.
        job_bytes: what a job takes, from `job_gpu_bytes`.
    """
    return max(1, int(_USABLE * (gpu_bytes or 0) / job_bytes))
