"""The members' log odds of a manifest's images; what was scored before a stop is kept."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.registry.bundle import Bundle
from thyro_core.store.keys import evaluation_chunk_key
from thyro_core.store.store import Store
from thyro_core.types import FloatArray

_BLOCK_IMAGES = 256
"""Images between two writes; a multiple of the size of a batch, which decides the last bits."""


def member_margins(
    store: Store,
    bundle: Bundle,
    images: pa.Table,
    image_ids: list[str],
    *,
    place: tuple[str, Path],
    progress: Callable[[int, int], None] = lambda _n_done, _total: None,
) -> FloatArray:
    """Each member's logit of malignant minus its logit of benign.

    In this process, on its GPU if there is one, else on all of its cores.

    Args:
        store: holds the model and the manifest's pack at its size; takes what is scored.
        bundle: the model.
        images: the manifest's table `images`.
        image_ids: image_id of those to score, in the order of the result.
        place: evaluation_id, and a node-local folder.
        progress: called with the number scored and the number of all.

    Returns:
        (n, members).

    Raises:
        InputError: the pack or a member's weights are gone or damaged.
    """
    evaluation_id, scratch = place
    starts = range(0, len(image_ids), _BLOCK_IMAGES)
    keys = {start: evaluation_chunk_key(evaluation_id, start) for start in starts}
    scorer: Callable[[list[str]], FloatArray] | None = None
    parts = [np.empty((0, len(bundle.members)))]
    for start in starts:
        some = image_ids[start : start + _BLOCK_IMAGES]
        part = _read_chunk(store, keys[start], (len(some), len(bundle.members)))
        if part is None:
            scorer = scorer or _scorer(store, bundle, images, scratch)
            part = scorer(some)
            buffer = io.BytesIO()
            np.save(buffer, part, allow_pickle=False)
            store.write(keys[start], buffer.getvalue())
        parts.append(part)
        progress(start + len(some), len(image_ids))
    return np.concatenate(parts)


def device_in_use() -> str:
    """Name of the device that scores."""
    from thyro_core.training.device import device_name, job_device

    return device_name(job_device(1))


def _read_chunk(store: Store, key: str, shape: tuple[int, int]) -> FloatArray | None:
    """What an earlier start scored; None: nothing, or of other images."""
    if not store.exists(key):
        return None
    part: FloatArray = np.load(io.BytesIO(store.read(key)), allow_pickle=False)
    return part if part.shape == shape else None


def _scorer(
    store: Store, bundle: Bundle, images: pa.Table, scratch: Path
) -> Callable[[list[str]], FloatArray]:
    import torch

    from thyro_core.registry.ensemble import load_members
    from thyro_core.training.batches import Examples
    from thyro_core.training.device import job_device
    from thyro_core.training.inference import image_batches

    index = pack_index(images)
    (manifest_id,) = set(images["manifest_id"].to_pylist())
    pixels = open_pack(store, manifest_id, bundle.side, scratch, len(index))
    device = job_device(1)
    members = [member.to(device) for member in load_members(bundle, store, scratch)]

    def score(some: list[str]) -> FloatArray:
        rows = np.array([index[image_id] for image_id in some], dtype=np.int64)
        examples = Examples(pixels, rows, torch.zeros(len(rows), dtype=torch.int64))
        parts = []
        with torch.inference_mode():
            for batch in image_batches(examples, device):
                logits = torch.stack([member(batch) for member in members], dim=1)
                values = logits.float().cpu().double().numpy()
                parts.append(values[..., 1] - values[..., 0])
        return np.concatenate(parts)

    return score
