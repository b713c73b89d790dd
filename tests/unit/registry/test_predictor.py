"""A promoted model in a notebook: the same scores whatever the images come as."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thyro_core import load_model
from thyro_core.errors import InputError
from thyro_core.registry.bundle import Bundle
from thyro_core.store.store import Store


def test_paths_pil_images_and_arrays_score_alike(
    model: tuple[Store, Bundle], tmp_path: Path
) -> None:
    store, bundle = model
    arrays = np.random.default_rng(0).integers(0, 256, (34, 80, 70), dtype=np.uint8)
    images = [Image.fromarray(array) for array in arrays]
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    predictor = load_model(store)
    assert predictor.bundle.model_id == load_model(store.url, bundle.model_id).bundle.model_id
    frame = predictor.predict(paths)
    assert frame.equals(predictor.predict(images))
    assert frame.equals(predictor.predict(arrays))
    assert frame.equals(predictor.predict(np.stack([arrays] * 3, axis=-1)))
    assert len(frame) == 34
    assert frame["prob_malignant"].between(0, 1).all()
    assert (frame["positive"] == (frame["prob_malignant"] >= bundle.threshold)).all()
    maps = predictor.gradcam(map(str, paths))
    assert maps.shape[:2] == (34, 2)
    np.testing.assert_array_equal(maps, predictor.gradcam(arrays))
    assert predictor.predict([]).empty
    assert len(predictor.gradcam([])) == 0
    with pytest.raises(TypeError, match="expected an image of type uint8, found float64"):
        predictor.predict([np.zeros((8, 8))])  # type: ignore[list-item]
    with pytest.raises(InputError, match="expected an image file, found a folder, a pipe or a dev"):
        predictor.predict([tmp_path])


def test_an_unknown_model_is_named(model: tuple[Store, Bundle]) -> None:
    with pytest.raises(InputError, match="expected a promoted model b0, found b"):
        load_model(model[0], "b0")
