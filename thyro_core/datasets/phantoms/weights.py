"""Starting weights made of phantoms, where there is no way to ImageNet's.

Networks learn from phantoms of a seed of their own, so that no image of a set that is then studied
takes part. A study that starts from them learns more in the same time than one from random weights.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt

from thyro_core.config import Architecture, StudyConfig
from thyro_core.datasets.phantoms.generate import phantom
from thyro_core.errors import InputError
from thyro_core.host import cores
from thyro_core.imaging import decode as pictures
from thyro_core.store.store import open_store

SEED = 2**31 - 1
"""Of the phantoms; of a set that is studied it is refused."""

IMAGES = 800
"""Half of them malignant."""

TRAINING_SIDE = 96
"""Of the network input [pixels]; a study may have another one."""

# Of each network as many epochs as take the same time, and a learning rate at which it learns.
_RECIPES: dict[Architecture, dict[str, float]] = {
    "resnet18": {"epochs": 6, "learning_rate": 1e-3},
    "alexnet": {"epochs": 10, "learning_rate": 2e-4},
}
PHANTOM_NETWORKS: tuple[Architecture, ...] = tuple(_RECIPES)
"""The networks that there is a recipe for."""

Pixels = npt.NDArray[np.uint8]


def write_starting_weights(
    dest: str,
    *,
    side: int = TRAINING_SIDE,
    images: int = IMAGES,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Write `<architecture>.safetensors` of each network there is a recipe for, unless it is there.

    The same side and machine, the same bytes.

    Args:
        dest: folder or fsspec URL.
        side: of the network input [pixels].
        images: how many phantoms the networks learn from.
        progress: called with what is being done.
    """
    store = open_store(dest)
    lacking = [name for name in PHANTOM_NETWORKS if not store.exists(_key(name))]
    if not lacking:
        return
    # Spawn: a forked child of a caller with threads may inherit a held lock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=context) as pool:
        progress(f"drawing {images} phantoms for the starting weights")
        tasks = [(index, side) for index in range(images)]
        pixels = np.stack(list(pool.map(_draw, tasks, chunksize=8)))
        progress(f"training {' and '.join(lacking)} on them")
        futures = {name: pool.submit(_train_network_on, name, pixels) for name in lacking}
        for name, future in futures.items():
            store.write(_key(name), future.result())


def check_seed(seed: int) -> None:
    """Refuse the one seed whose phantoms the starting weights know.

    Raises:
        InputError: it is that one.
    """
    if seed == SEED:
        msg = f"seed: expected another one than {SEED}, of which starting weights are made"
        raise InputError(msg)


def _key(architecture: Architecture) -> str:
    return f"{architecture}.safetensors"


def _class_of(index: int) -> int:
    return index % 2


def _draw(task: tuple[int, int]) -> Pixels:
    index, side = task
    return pictures.resize(phantom(SEED, index, bool(_class_of(index))).image, side)


def _train_network_on(architecture: Architecture, pixels: Pixels) -> bytes:
    """The trained network's tensors as a safetensors file, in half precision."""
    import torch
    from safetensors.torch import save

    from thyro_core.training.batches import Examples
    from thyro_core.training.device import prepare_torch
    from thyro_core.training.inference import recalibrate_batchnorm
    from thyro_core.training.loop import Recipe, balanced_alpha, start_run, train
    from thyro_core.training.models import build

    prepare_torch(1, deterministic=True)
    labels = torch.tensor([_class_of(index) for index in range(len(pixels))])
    examples = Examples(pixels, np.arange(len(pixels)), labels)
    config = StudyConfig.model_validate(
        {"architectures": (architecture,), "image_size": pixels.shape[-1]} | _RECIPES[architecture]
    )
    recipe = Recipe(config, SEED, balanced_alpha(labels), "fp32", torch.device("cpu"))
    run = start_run(build(architecture, config.side(architecture), SEED), recipe)
    train(run, examples, None, recipe, lambda _: None, lambda *_: None)
    recalibrate_batchnorm(run.model, examples, recipe.device)
    state = run.model.state_dict()
    return save(
        {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in state.items()
        }
    )
