"""Quality figures of an image: is it in focus, and how much of it is drawn in colour?"""

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Grey = npt.NDArray[np.uint8]

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
    small = _shrink(grey).astype(np.float32)
    tiles, edges = _tiles(small), _tiles(ndimage.laplace(small))
    variance = tiles.var(axis=1)
    tissue = (tiles.mean(axis=1) > _TISSUE_LEVEL) & (variance > _TISSUE_SD**2)
    if not tissue.any():
        return 0.0
    energy = np.maximum(edges.var(axis=1) - _ROUNDING_NOISE, 0.0)
    return float(np.median(energy[tissue] / variance[tissue]))


def _shrink(grey: Grey) -> Grey:
    height, width = grey.shape
    factor = _SHARPNESS_SIDE / max(height, width)
    if factor >= 1:
        return grey
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))


def _tiles(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(tiles, 256): the whole tiles of an image, counted from its upper left corner."""
    rows, columns = image.shape[0] // _TILE, image.shape[1] // _TILE
    whole = image[: rows * _TILE, : columns * _TILE]
    return whole.reshape(rows, _TILE, columns, _TILE).swapaxes(1, 2).reshape(-1, _TILE * _TILE)


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
    pixels = rgb[::step, ::step].reshape(-1, 3).astype(np.float32)
    brightness = pixels.mean(axis=1, keepdims=True)
    spread = np.ptp(pixels - _tint(pixels, brightness) * brightness, axis=1)
    return float((spread > _OVERLAY_SPREAD).mean())


def _tint(
    pixels: npt.NDArray[np.float32], brightness: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(3,): what each channel is per unit of brightness; ones for an image without a tint."""
    bright = brightness[:, 0] > _BRIGHT
    none = np.ones(3, dtype=np.float32)
    if not bright.any():
        return none
    gains: npt.NDArray[np.float32] = np.median(pixels[bright] / brightness[bright], axis=0)
    return none if np.ptp(gains) > _TINT_SPREAD else gains


def grey_statistics(grey: Grey) -> tuple[float, float]:
    """Mean and standard deviation (of the population) of the grey level, 0 to 255."""
    return float(grey.mean()), float(grey.std())
