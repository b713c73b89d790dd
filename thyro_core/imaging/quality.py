"""Quality figures of an image: is it in focus, and how much of it is drawn in colour?"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from thyro_core.imaging import grey_sums
from thyro_core.types import Float32Array, FloatArray, Grey

_SHARPNESS_SIDE = 512
_TILE = 16
_TISSUE_LEVEL = 10.0
_TISSUE_SD = 4.0
# Rounding has the variance 1/12; the Laplacian's weights (four of 1, one of -4) amplify it by 20.
_ROUNDING_NOISE = 20 / 12
_OVERLAY_SIDE = 2048
_OVERLAY_SPREAD = 32.0
_BRIGHT = 32.0
_TINT_SPREAD = 0.5


def sharpness(grey: Grey) -> float:
    """How well an image is in focus: the median over tissue of a normalised Laplacian energy.

    The image is shrunk to 512 pixels on its longer side (never enlarged) and cut into tiles of
    16 x 16. In each tile with tissue (mean above 10, standard deviation above 4) the variance of
    the Laplacian, less what rounding to whole grey levels adds, is divided by the variance of the
    grey level, so that gain and contrast cancel (after the variance of the Laplacian,
    Pech-Pacheco et al. 2000). The median over tiles ignores black borders, and burned-in text and
    graphics up to half of the tissue.

    Speckle in focus gives 0.2 to 6; after a Gaussian blur of sigma 3 pixels, below 0.05.

    Args:
        grey: uint8 (height, width).

    Returns:
        At least 0, without a unit; 0 if no tile holds tissue.
    """
    small = shrink(grey)
    mean, variance = _tile_moments(small)
    tissue = (mean > _TISSUE_LEVEL) & (variance > _TISSUE_SD**2)
    if not tissue.any():
        return 0.0
    energy = np.maximum(_tile_moments(_laplacian(small))[1] - _ROUNDING_NOISE, 0.0)
    return float(np.median(energy[tissue] / variance[tissue]))


def tissue_tiles(
    grey: Grey, prepare: Callable[[Grey], Grey]
) -> tuple[npt.NDArray[np.bool_], float]:
    """Which tiles of a picture hold tissue, see `sharpness`.

    Args:
        grey: uint8 (H, W).
        prepare: applied to the shrunk picture.

    Returns:
        (rows, columns) of whole tiles; and the side of a tile in the picture [pixels].
    """
    small = shrink(grey)
    mean, variance = _tile_moments(prepare(small))
    tissue = (mean > _TISSUE_LEVEL) & (variance > _TISSUE_SD**2)
    shape = small.shape[0] // _TILE, small.shape[1] // _TILE
    return tissue.reshape(shape), _TILE * max(grey.shape) / max(small.shape)


def shrink(grey: Grey) -> Grey:
    """The picture with 512 pixels on its longer side; a smaller one as it is.

    Args:
        grey: uint8 (H, W).
    """
    height, width = grey.shape
    factor = _SHARPNESS_SIDE / max(height, width)
    if factor >= 1:
        return grey
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))


def _laplacian(grey: Grey) -> npt.NDArray[np.int16]:
    """The sum of the four neighbours less four times the pixel; the border is repeated."""
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.Laplacian(grey, cv2.CV_16S, ksize=1, borderType=border), np.int16)


def _tile_moments(image: npt.NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
    """Mean and variance in each whole tile, counted from the upper left corner.

    Exact sums: of 16 squares of a Laplacian (at most 1020) even in float32, the fastest.
    """
    rows, columns = image.shape[0] // _TILE, image.shape[1] // _TILE
    whole = image[: rows * _TILE, : columns * _TILE].astype(np.float32)
    strips = whole.reshape(rows, _TILE, columns * _TILE)
    first = _along_strips(strips.sum(axis=1))
    second = _along_strips(np.einsum("rkw,rkw->rw", strips, strips))
    pixels = _TILE**2
    return first / pixels, (pixels * second - first * first) / pixels**2


def _along_strips(sums: Float32Array) -> FloatArray:
    tiles: FloatArray = sums.reshape(-1, _TILE).sum(axis=1, dtype=np.float64)
    return tiles


def overlay_share(rgb: npt.NDArray[np.uint8]) -> float:
    """Share of coloured pixels: Doppler, coloured callipers and text.

    A pixel counts when its channels differ by more than 32 of 255 after the image's tint is
    taken off. The tint is the median ratio of channel to brightness over pixels brighter than 32,
    as sepia and bluish grey maps have; one whose channels differ by more than 0.5 of the
    brightness is no tint but a drawing, and stays.

    Args:
        rgb: uint8 (height, width, 3). A side longer than 2048 is sampled at even steps.

    Returns:
        From 0 to 1.
    """
    step = -(-max(rgb.shape[:2]) // _OVERLAY_SIDE)
    sample = rgb[::step, ::step]
    red, green, blue = cv2.split(sample)
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    spread = cv2.subtract(most, least)
    if not spread.any():
        return 0.0
    # Of most bright pixels the median colour, the tint, is none if they are grey.
    bright = np.add(red, green, dtype=np.uint16) + blue > 3 * _BRIGHT
    if 2 * np.count_nonzero(bright & (spread == 0)) > np.count_nonzero(bright):
        return _n_coloured(sample[spread >= _OVERLAY_SPREAD], np.ones(3, np.float32)) / spread.size
    pixels = sample.reshape(-1, 3)
    return _n_coloured(pixels, _tint(pixels.astype(np.float32))) / spread.size


def _n_coloured(rgb: npt.NDArray[np.uint8], tint: Float32Array) -> int:
    """Number of pixels (n, 3) that are coloured once the tint is taken off."""
    pixels = rgb.astype(np.float32)
    brightness = pixels.mean(axis=1, keepdims=True)
    return int(np.count_nonzero(np.ptp(pixels - tint * brightness, axis=1) > _OVERLAY_SPREAD))


def _tint(pixels: Float32Array) -> Float32Array:
    """(3,): what each channel is per unit of brightness; ones for an image without a tint."""
    brightness = pixels.mean(axis=1, keepdims=True)
    bright = brightness[:, 0] > _BRIGHT
    none = np.ones(3, dtype=np.float32)
    if not bright.any():
        return none
    gains: Float32Array = np.median(pixels[bright] / brightness[bright], axis=0)
    return none if np.ptp(gains) > _TINT_SPREAD else gains


def grey_statistics(grey: Grey) -> tuple[float, float]:
    """Mean and standard deviation (of the population) of the grey level, 0 to 255."""
    return grey_sums.mean_and_sd(grey.size, grey_sums.total(grey), grey_sums.squares(grey))
