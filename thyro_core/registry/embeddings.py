"""Embeddings of a whole pack, the same bytes each time: one thread, batches of one size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from thyro_core.datasets.packs import open_pack
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.ensemble import embedding, load_members
from thyro_core.store.store import Store
from thyro_core.training.batches import Examples
from thyro_core.training.inference import image_batches


def training_embeddings(
    bundle: Bundle, store: Store, scratch: Path, rows: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.float32]:
    """Embeddings of a study's images by a bundle's first member, on the CPU.

    Args:
        bundle: the model; only its first member is read.
        store: holds its weights and its manifest's pack.
        scratch: node-local folder.
        rows: (n,), the images' rows in the pack.
        size: number of all images in the pack.

    Returns:
        (n, k), float32.

    Raises:
        InputError: the weights or the pack are gone or damaged.
    """
    pixels = open_pack(store, bundle.card["data"]["manifest_id"], bundle.side, scratch, size)
    (member,) = load_members(bundle, store, scratch)[:1]
    examples = Examples(pixels, rows, torch.zeros(len(rows), dtype=torch.int64))
    with _one_thread():
        parts = [
            embedding(member, bundle.architecture, images)
            for images in image_batches(examples, torch.device("cpu"))
        ]
    return np.concatenate(parts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums, and so the last bits, depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
