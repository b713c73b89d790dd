"""A promoted model in memory, for notebooks: probabilities and Grad-CAM maps of some images."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from thyro_core.config import IngestConfig
from thyro_core.datasets.nodule_boxes import box_of_cells
from thyro_core.errors import InputError
from thyro_core.host import scratch_folder
from thyro_core.imaging.decode import decode
from thyro_core.imaging.tissue import Box
from thyro_core.imaging.view import square_view, view_box
from thyro_core.registry.bundle import Bundle, load_bundle
from thyro_core.registry.champion import champion
from thyro_core.registry.ensemble import load_members, mean_maps, score_batch
from thyro_core.settings import Settings
from thyro_core.store.store import Store, open_store
from thyro_core.training.batches import normalise
from thyro_core.types import Float32Array, Grey

if TYPE_CHECKING:
    import pandas as pd

ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]
"""A picture file, a PIL image, or uint8 grey levels (height, width) or colours (..., 3)."""

NoduleBox = tuple[float, float, float, float]
"""Left, top, width and height of a nodule in its image [pixels]."""

_BATCH = 32


@dataclass(frozen=True)
class Predictor:
    """A promoted model whose members are in memory, on the CPU.

    For research only: it applies none of a screening's checks (burned-in marks, distance from the
    training set, duplicates).

    Attributes:
        bundle: id, architecture, threshold, calibration and card of the model.
        members: its networks, in evaluation mode.
    """

    bundle: Bundle
    members: tuple[nn.Module, ...]

    def predict(
        self, images: Iterable[ImageLike], boxes: Sequence[NoduleBox] | None = None
    ) -> "pd.DataFrame":
        """Calibrated probabilities of malignant, one row an image, in the order given.

        Args:
            images: picture files, PIL images or uint8 arrays, as they came: what the model sees of
                them (crop, cleaning, square) is made here. The first frame of a file counts.
            boxes: of a model that was trained on crops of nodules, each image's nodule: left, top,
                width and height [pixels]; of others None.

        Returns:
            Columns `prob_malignant` (calibrated), `prob_raw` (mean over members of their softmax
            probability), `sd` (over members, calibrated; NaN for one member) and `positive` (from
            the model's threshold on).

        Raises:
            InputError: boxes are needed and not given, or given and not needed, or one is none.
            UndecodableError: a file is no picture or is damaged.
            OSError: a file cannot be read.
        """
        import pandas as pd

        scores = [
            score_batch(self.members, batch, self.bundle.calibration)
            for batch in _batches(images, boxes, self.bundle)
        ]
        columns = {
            "prob_malignant": [each.probability for each in scores],
            "prob_raw": [each.raw for each in scores],
            "sd": [each.sd for each in scores],
        }
        frame = pd.DataFrame(
            {name: np.concatenate([np.empty(0), *parts]) for name, parts in columns.items()}
        )
        return frame.assign(positive=frame["prob_malignant"] >= self.bundle.threshold)

    def gradcam(
        self, images: Iterable[ImageLike], boxes: Sequence[NoduleBox] | None = None
    ) -> Float32Array:
        """Members' mean raw Grad-CAM maps, not scaled: comparable between images.

        Args:
            images: as for `predict`.
            boxes: as for `predict`.

        Returns:
            (n, 2, h, w), over the square that the model sees; the second axis is the target class:
            benign, malignant.

        Raises:
            InputError: as for `predict`.
            UndecodableError: a file is no picture or is damaged.
            OSError: a file cannot be read.
            CamError: a map is not finite.
        """
        maps = [
            mean_maps(self.members, self.bundle.architecture, batch)
            for batch in _batches(images, boxes, self.bundle)
        ]
        return np.concatenate(maps) if maps else np.empty((0, 2, 0, 0), np.float32)


def load_model(store: Store | str, model_id: str | None = None) -> Predictor:
    """A promoted model, its files checked against its card.

    Args:
        store: from `open_store`, or its folder or fsspec URL.
        model_id: as `thyro models` lists it; None: the champion.

    Raises:
        InputError: there is no such model, or no champion, or a file is gone or damaged.
    """
    opened_store = open_store(store) if isinstance(store, str) else store
    bundle = load_bundle(opened_store, champion(opened_store) if model_id is None else model_id)
    members = load_members(bundle, opened_store, scratch_folder(Settings()))
    return Predictor(bundle, tuple(members))


def _batches(
    images: Iterable[ImageLike], boxes: Sequence[NoduleBox] | None, bundle: Bundle
) -> Iterator[Tensor]:
    inputs: list[Grey] = []
    for grey, nodule in _with_boxes(map(_grey_levels, images), boxes, bundle):
        box = view_box(grey, bundle.view, nodule)
        inputs.append(square_view(grey, bundle.side, bundle.view, box))
        if len(inputs) == _BATCH:
            yield _network_input(inputs)
            inputs = []
    if inputs:
        yield _network_input(inputs)


def _with_boxes(
    greys: Iterable[Grey], boxes: Sequence[NoduleBox] | None, bundle: Bundle
) -> Iterator[tuple[Grey, Box | None]]:
    sees_nodules = bundle.view.region == "nodule"
    if sees_nodules != (boxes is not None):
        kind = "nodules alone, and boxes" if sees_nodules else "whole pictures, and no boxes"
        msg = f"model {bundle.model_id}: it sees {kind}; found {'none' if sees_nodules else 'some'}"
        raise InputError(msg)
    if boxes is None:
        yield from ((grey, None) for grey in greys)
        return
    rest = iter(boxes)
    for number, grey in enumerate(greys):
        cells = next(rest, None)
        if cells is None:
            msg = f"expected a box for each image, found {number}; give (left, top, width, height)"
            raise InputError(msg)
        x, y, w, h = map(str, cells)
        try:
            yield grey, box_of_cells([(x, y, w, h)], (grey.shape[1], grey.shape[0]))
        except ValueError as error:
            msg = f"box {number}: {error}"
            raise InputError(msg) from error


def _network_input(inputs: list[Grey]) -> Tensor:
    return normalise(torch.from_numpy(np.stack(inputs)).unsqueeze(1).float() / 255.0)


def _grey_levels(image: ImageLike) -> Grey:
    """The image as ingest decodes it, whatever it comes as."""
    if isinstance(image, str | Path):
        if Path(image).exists() and not Path(image).is_file():
            msg = f"{image}: expected an image file, found a folder, a pipe or a device"
            raise InputError(msg)
        return decode(Path(image).read_bytes(), IngestConfig()).grey
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            msg = f"expected an image of type uint8, found {image.dtype}"
            raise TypeError(msg)
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    return decode(buffer.getvalue(), IngestConfig()).grey
