"""Referred images with their Grad-CAM maps over them, at full size, for the archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from thyro_core.config import ViewConfig
from thyro_core.explain.maps import stored_maps
from thyro_core.explain.overlay import overlay_map
from thyro_core.imaging.burned_text import paint_over
from thyro_core.imaging.tissue import Box
from thyro_core.imaging.view import map_over_picture, view_box
from thyro_core.registry.bundle import load_bundle
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.contents import read_contents
from thyro_core.screening.file_images import FileImages
from thyro_core.screening.files import FoundFile
from thyro_core.screening.reader import ScreeningImage
from thyro_core.screening.rules import Night
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table
from thyro_core.types import Grey

_MALIGNANT_CLASS = 1


@dataclass
class MapDrawer:
    """Draws maps of nights of one batch; to be closed.

    Attributes:
        store: of the nights.
        fs: the batch's file system.
        root: the batch on it.
    """

    store: Store
    fs: fsspec.AbstractFileSystem
    root: str
    _images: dict[ScreeningRules, FileImages] = field(default_factory=dict)
    _cams: tuple[Night, pa.Table] | None = None

    def draw(
        self, night: Night, file: FoundFile, image_ids: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.uint8]]:
        """Images of a file with their maps, uint8 (H, W, 3), text in them painted over.

        Args:
            night: whose maps.
            file: of the batch.
            image_ids: which images; what has no map, or cannot be decoded any more, is left out.
        """
        cams = self._maps_of(night, image_ids)
        contents = read_contents(self.fs, self.root, file, night.rules.max_bytes)
        if not cams or contents is None:
            return {}
        if night.rules not in self._images:
            self._images[night.rules] = FileImages(night.rules, None)
        images = self._images[night.rules].read(contents, "")
        view = load_bundle(self.store, night.model_id).view
        return {
            image.image_id: overlay_map(
                paint_over(image.grey, _text_boxes_of(image)),
                _whole_map(cams[image.image_id], image.grey, view),
            )
            for image in images
            if image.grey is not None and image.image_id in cams
        }

    def close(self) -> None:
        """End the decoders' processes."""
        for images in self._images.values():
            images.close()

    def _maps_of(
        self, night: Night, image_ids: Sequence[str]
    ) -> dict[str, npt.NDArray[np.float32]]:
        if self._cams is None or self._cams[0] != night:
            keys: dict[str, str | int] = {"date": night.number, "batch_id": night.batch_id}
            cams = read_table(self.store, "screening_cams", **keys)
            is_malignant = pc.equal(cams["target_class"], _MALIGNANT_CLASS)
            self._cams = night, cams.filter(is_malignant)
        cams = self._cams[1]
        own = cams.filter(pc.is_in(cams["image_id"], pa.array(image_ids, pa.string())))
        if not own.num_rows:
            return {}
        return dict(zip(own["image_id"].to_pylist(), stored_maps(own), strict=True))


def _whole_map(
    cam: npt.NDArray[np.float32], grey: Grey, view: ViewConfig
) -> npt.NDArray[np.float32]:
    """A map of what the model saw over the whole picture."""
    height, width = grey.shape
    row = {"width": width, "height": height, "view_box": view_box(grey, view)}
    return map_over_picture(cam, (width, height), row, pad=view.is_padded)


def _text_boxes_of(image: ScreeningImage) -> list[Box]:
    sides = iter(image.text or ())
    return list(zip(sides, sides, sides, sides, strict=True))
