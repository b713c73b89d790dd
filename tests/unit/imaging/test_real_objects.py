"""Real ultrasound objects: each picture is what an independent decoder makes of it.

With dcmtk's programs (Debian: dcmtk) or GDCM (SimpleITK) beside Thyro, pixel by pixel; without
either, against figures of what GDCM made of them. `python -m tests.unit.imaging.test_real_objects`
writes those anew; it needs both decoders.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from tests.support.places import REPOSITORY, SHARED
from thyro_core.imaging.dicom import DicomFrame, DicomImages, read_dicom
from thyro_core.imaging.dicom_pixels import tissue_boxes
from thyro_core.screening.config import ScreeningRules

FIGURES = REPOSITORY / "tests/golden/dicom-greys.json"
PICTURES = {
    "JPEGLosslessP14SV1_1s_1f_u_08_08": 1, "OBXXXX1A_2frame": 2, "OBXXXX1A_expb": 1,
    "YBR_FULL-RLE": 1, "examples_jpeg2k": 1, "examples_palette": 1, "examples_rgb_color": 1,
    "examples_ybr_color": 8, "gdcm-US-ALOKA-16": 2, "gdcm-US-RGB-8-esopecho": 1,
    "jpeg-ls-Palette": 8,
}  # fmt: skip
PROGRAMS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")
_LUMA = (0.299, 0.587, 0.114)


def real(name: str) -> tuple[bytes, DicomImages]:
    file = SHARED / "data" / "dicom" / f"{name}.dcm"
    if not file.is_file():
        pytest.skip("the real ultrasound objects are not here (THYRO_SHARED)")
    data = file.read_bytes()
    return data, read_dicom(data, ScreeningRules(), lambda *_: "q1")


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """Grey levels from 0 to 255."""
    scale = 257.0 if pixels.dtype == np.uint16 else 1.0
    return (pixels @ np.array(_LUMA) if pixels.ndim == 3 else pixels.astype(float)) / scale


def by_dcmtk(file: Path, frame: int, source: Dataset) -> np.ndarray | None:
    """What the first of dcmtk's programs makes of a frame that reads its transfer syntax."""
    window = ("+Wi", "1") if "WindowCenter" in source else ()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "frame.pnm"
        for program in filter(shutil.which, PROGRAMS):
            command = [program, *window, "+F", str(frame + 1), str(file), str(out)]
            done = subprocess.run(command, capture_output=True)
            if done.returncode == 0 and out.is_file():
                return grey_of(np.asarray(Image.open(out)))
    return None


@cache
def volume(file: Path) -> np.ndarray:
    sitk: Any = import_module("SimpleITK")
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))


def by_gdcm(file: Path, frame: int, source: Dataset) -> np.ndarray | None:
    """What GDCM makes of a frame; it applies no window."""
    if find_spec("SimpleITK") is None or "WindowCenter" in source:
        return None
    return grey_of(volume(file)[frame])


def references(data: bytes, frame: DicomFrame) -> Iterator[np.ndarray]:
    """A frame's picture by each independent decoder that reads it here."""
    source = pydicom.dcmread(io.BytesIO(data))
    boxes, _ = tissue_boxes(source)
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(data)
        file.flush()
        for decoder in (by_gdcm, by_dcmtk):
            whole = decoder(Path(file.name), frame.index, source)
            if whole is None:
                continue
            if boxes:
                left, top, right, bottom = boxes[frame.view[0] if frame.view else 0]
                whole = whole[top:bottom, left:right]
            yield whole


def figures(grey: np.ndarray) -> list[float]:
    """Mean, standard deviation, eleven quantiles and the means of the four quarters.

    None of them differs by more than one where no pixel does.
    """
    high, wide = grey.shape[0] // 2, grey.shape[1] // 2
    quarters = [
        part for half in (grey[:high], grey[high:]) for part in (half[:, :wide], half[:, wide:])
    ]
    values = [grey.mean(), grey.std(), *np.quantile(grey, np.linspace(0, 1, 11))]
    return [round(float(value), 2) for value in (*values, *(part.mean() for part in quarters))]


def label(frame: DicomFrame) -> str:
    return f"{frame.index}/{frame.view[0] if frame.view else 0}"


@pytest.mark.parametrize("name", PICTURES)
def test_no_pixel_differs_by_more_than_a_grey_level(name: str) -> None:
    data, contents = real(name)
    assert contents.reason is None, contents.detail
    assert len(contents.frames) == PICTURES[name]
    n_references = 0
    for frame in contents.frames:
        assert frame.image is not None, frame.detail
        for reference in references(data, frame):
            n_references += 1
            np.testing.assert_allclose(frame.image.grey.astype(float), reference, atol=1.0)
    if not n_references:
        pytest.skip("no independent decoder that is installed reads it: dcmtk, or SimpleITK")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_have_the_figures_of_an_independent_decoder(name: str) -> None:
    data, contents = real(name)
    expected = json.loads(FIGURES.read_text())[name]
    assert hashlib.sha256(data).hexdigest() == expected["sha256"], "another file of this name"
    assert [label(frame) for frame in contents.frames] == list(expected["pictures"])
    for frame in contents.frames:
        assert frame.image is not None, frame.detail
        seen = figures(frame.image.grey.astype(float))
        np.testing.assert_allclose(seen, expected["pictures"][label(frame)], atol=1.01)


def test_the_figures_tell_pictures_apart() -> None:
    """A picture that is mirrored, inverted or brighter by two levels has others."""
    grey = np.random.default_rng(0).integers(0, 250, (40, 60)).astype(float)
    grey[:20, :30] *= 0.5
    for other in (grey[::-1], grey[:, ::-1], 255 - grey, grey + 2):
        assert np.abs(np.subtract(figures(grey), figures(other))).max() > 1.01


def write_figures() -> None:
    """Write `FIGURES` by the first decoder that reads each object."""
    table: dict[str, object] = {}
    for name in PICTURES:
        data, contents = real(name)
        pictures = {label(f): figures(next(references(data, f))) for f in contents.frames}
        table[name] = {"sha256": hashlib.sha256(data).hexdigest(), "pictures": pictures}
    lines = ",\n".join(f'"{name}": {json.dumps(table[name])}' for name in table)
    FIGURES.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write_figures()
