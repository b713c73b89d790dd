"""What a phantom shows: the scanner's settings, the neck, the nodule in it.

Only the nodule's features know the class. Scanner, neck and speckle are drawn from streams of their
own, so nothing but the nodule can tell benign from malignant.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from thyro_core.datasets.phantoms.features import ANECHOIC_DB, Features
from thyro_core.types import Float32Array

# Outline: (relative amplitude, lowest and highest order of its waves, width of the edge).
_OUTLINE = {
    "smooth": (0.02, 2, 3, 0.015),
    "ill-defined": (0.04, 2, 4, 0.10),
    "lobulated": (0.09, 3, 6, 0.02),
    "irregular": (0.14, 4, 12, 0.05),
}


@dataclass(frozen=True)
class Scan:
    """How and where the picture was taken; lengths without a unit are in image depths.

    `top` counts the black rows above the tissue, `coverage` is the part of the width that a linear
    probe fills; `radius` is that of a fan probe's face, `half_angle` half its opening [rad].
    `looks` are compounded into one picture. `side` is +1 with the trachea on the right, -1 on the
    left; `nodule_size` is the geometric mean of the nodule's height and width.
    """

    height: int
    width: int
    top: int
    coverage: float
    fan: bool
    radius: float
    half_angle: float
    depth_cm: float
    frequency_mhz: float
    gain_db: float
    dynamic_range_db: float
    looks: int
    marks: bool
    transverse: bool
    side: int
    nodule_size: float
    nodule_x: float
    nodule_z: float


class Grid(NamedTuple):
    """Where the samples lie: lateral `x` (rows, lines) and depth `z` (rows, 1), in image depths."""

    x: Float32Array
    z: Float32Array


class Tissue(NamedTuple):
    """Echo level [dB] and excess loss [dB per image depth], float32 (rows, lines)."""

    echo: Float32Array
    loss: Float32Array


def draw_scan(seed: int, index: int) -> Scan:
    """Scanner, view and place of the nodule of one phantom, drawn in ignorance of its class."""
    rng = np.random.default_rng([seed, index, 1])
    fan, size = bool(rng.random() < 0.2), float(rng.uniform(0.38, 0.54))
    height, width, top = (int(rng.integers(*r)) for r in ((300, 421), (400, 561), (4, 22)))
    coverage = float(rng.choice([1.0, rng.uniform(0.74, 0.97)]))
    half_width = 0.5 if fan else 0.5 * coverage * width / (height - top)
    room = max(0.0, half_width - 0.66 * size)
    return Scan(
        height=height,
        width=width,
        top=top,
        coverage=coverage,
        fan=fan,
        radius=float(rng.uniform(0.6, 0.9)),
        half_angle=float(rng.uniform(0.42, 0.56)),
        depth_cm=float(rng.uniform(2.8, 4.6)),
        frequency_mhz=float(rng.uniform(7.0, 11.0)),
        gain_db=float(rng.normal(0.0, 1.5)),
        dynamic_range_db=float(rng.uniform(55.0, 65.0)),
        looks=int(rng.integers(1, 4)),
        marks=bool(rng.random() < 0.5),
        transverse=bool(rng.random() < 0.5),
        side=int(rng.choice([-1, 1])),
        nodule_size=size,
        nodule_x=float(rng.uniform(-0.5, 0.5) * room),
        nodule_z=float(0.17 + 0.6 * size + rng.uniform(0.0, 0.12)),
    )


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Float32Array:
    """A smooth random float32 field of about unit variance, `cells` bumps high and wide."""
    coarse = rng.standard_normal(cells, dtype=np.float32)
    fine = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float32) * np.float32(1.4)


def _ridge(
    tissue: Float32Array, distance: Float32Array, width: float, peak: float | Float32Array
) -> Float32Array:
    """Raise a bright line or dot: a parabola in dB is a Gaussian in amplitude."""
    bump = peak - 8.0 * np.square(distance / np.float32(width))
    return np.asarray(np.maximum(tissue, bump), dtype=np.float32)


def _curve(
    rng: np.random.Generator, grid: Grid, base: float, bow: float, centre: float
) -> Float32Array:
    """A tissue boundary: depth at each sample, bowed about `centre` and slightly wavy."""
    tilt, phase = rng.normal(0.0, 0.03), rng.uniform(0.0, 2 * np.pi, 2)
    wave = 0.008 * np.sin(6.0 * grid.x + phase[0]) + 0.004 * np.sin(17.0 * grid.x + phase[1])
    offset = grid.x - np.float32(centre)
    return np.asarray(base + bow * np.square(offset) + tilt * offset + wave, dtype=np.float32)


def neck(rng: np.random.Generator, scan: Scan, grid: Grid) -> Tissue:
    """The neck around the nodule: skin, fat, strap muscles, lobe, deep muscle, vessels, trachea."""
    shape, reach = grid.x.shape, 0.61 * scan.nodule_size
    front = scan.nodule_z - reach - rng.uniform(0.01, 0.05)
    back = scan.nodule_z + reach + rng.uniform(0.02, 0.08)
    middle = scan.nodule_x + rng.normal(0.0, 0.1)
    fat = _curve(rng, grid, front * rng.uniform(0.35, 0.55), rng.uniform(-0.05, 0.1), middle)
    capsule = _curve(rng, grid, front, rng.uniform(0.0, 0.35), middle)
    floor = _curve(rng, grid, back, -rng.uniform(0.0, 0.6), middle)
    spine = _curve(rng, grid, back + rng.uniform(0.08, 0.16), rng.normal(0.0, 0.3), middle)
    spine = spine + 0.015 * noise(rng, shape, (2, 9))
    echo, breaks = _layers(rng, grid, fat, capsule, floor), noise(rng, shape, (9, 16))
    for curve, peak in ((fat, 7.0), (capsule, 8.0), (floor, 8.0), (spine, 8.0)):
        echo = _ridge(echo, grid.z - curve, rng.uniform(0.009, 0.016), peak + 6.0 * breaks)
    echo = _ridge(echo, grid.z, rng.uniform(0.02, 0.035), 15.0)
    return _landmarks(rng, scan, grid, Tissue(echo, 3.0 * noise(rng, shape, (3, 24))))


def _layers(
    rng: np.random.Generator,
    grid: Grid,
    fat: Float32Array,
    capsule: Float32Array,
    floor: Float32Array,
) -> Float32Array:
    """Echo level of fat, strap muscles, thyroid lobe and deep muscle, from the skin down [dB]."""
    z, shape = grid.z, grid.x.shape
    lobe = 1.5 * noise(rng, shape, (7, 9)) + 1.5 * noise(rng, shape, (40, 50))
    deep = -7.0 + _stripes(rng, grid, floor, 5.0, 24.0) + 4.0 * noise(rng, shape, (12, 8))
    straps = -8.0 + _stripes(rng, grid, capsule, 4.0, 50.0)
    superficial = -3.0 + _stripes(rng, grid, fat, 5.0, 60.0)
    above = np.where(z < fat, superficial, straps)
    return np.where(z < capsule, above, np.where(z < floor, lobe, deep))


def _stripes(
    rng: np.random.Generator, grid: Grid, curve: Float32Array, strength: float, rate: float
) -> Float32Array:
    """Fibres that run along a boundary, interrupted sideways [dB]."""
    along = grid.z - curve + 0.012 * noise(rng, grid.x.shape, (5, 6))
    levels = rng.standard_normal(256)
    fibres = np.interp(along * rate + 100.0, np.arange(256.0), levels)
    return np.asarray(
        fibres * (strength * (0.6 + 0.5 * noise(rng, grid.x.shape, (9, 8)))), np.float32
    )


def _landmarks(rng: np.random.Generator, scan: Scan, grid: Grid, tissue: Tissue) -> Tissue:
    """Small cysts and vessels anywhere; carotid and trachea on a transverse view."""
    half = 0.64 * scan.nodule_size
    for _ in range(rng.integers(0, 5)):
        x, z = rng.uniform(-0.7, 0.7), rng.uniform(scan.nodule_z - half, scan.nodule_z + half)
        tissue = _vessel(rng, grid, tissue, (x, z), rng.uniform(0.010, 0.028))
    carotid, trachea = rng.uniform(0.06, 0.10), rng.uniform(0.20, 0.30)
    gap, depths = rng.uniform(0.0, 0.10, 2), rng.uniform(-0.08, 0.12, 2)
    if not scan.transverse:
        return tissue
    x = scan.nodule_x - scan.side * (half + carotid + gap[0])
    tissue = _vessel(rng, grid, tissue, (x, scan.nodule_z + depths[0]), carotid)
    x = scan.nodule_x + scan.side * (half + 0.85 * trachea + gap[1])
    return _trachea(rng, grid, tissue, (x, scan.nodule_z + depths[1]), trachea)


def _vessel(
    rng: np.random.Generator, grid: Grid, tissue: Tissue, centre: tuple[float, float], radius: float
) -> Tissue:
    """An anechoic oval with a bright wall; blood attenuates less: what lies behind is bright."""
    squeeze, slant = rng.uniform(0.8, 1.5), rng.normal(0.0, 0.3)
    across = grid.x - np.float32(centre[0])
    down = (grid.z - np.float32(centre[1]) + np.float32(slant) * across) * np.float32(squeeze)
    far = np.hypot(across, down) * (1.0 + 0.06 * noise(rng, grid.x.shape, (12, 14)))
    depth = np.clip((radius - far) / np.float32(0.012), 0.0, 1.0)
    echo = tissue.echo + depth * (ANECHOIC_DB - tissue.echo)
    facing = np.square(down / np.maximum(far, np.float32(1e-3)))
    echo = _ridge(echo, far - radius, 0.008, 16.0 * facing - 10.0)
    return Tissue(echo, tissue.loss - np.float32(24.0) * (depth > 0.5))


def _trachea(
    rng: np.random.Generator, grid: Grid, tissue: Tissue, centre: tuple[float, float], radius: float
) -> Tissue:
    """Cartilage, a bright air surface and its fading reverberations above a shadow."""
    across, down = grid.x - np.float32(centre[0]), grid.z - np.float32(centre[1])
    far = np.hypot(across, np.float32(rng.uniform(0.75, 1.0)) * down)
    depth = radius - far + 0.008 * noise(rng, grid.x.shape, (6, 12))
    facing = np.clip(-down / np.maximum(far, np.float32(1e-3)), -1.0, 1.0)
    echo = np.where(depth > 0, np.float32(-13.0), tissue.echo)
    patchy, gap = 4.0 * noise(rng, grid.x.shape, (6, 18)), rng.uniform(0.04, 0.07)
    for bounce in range(3):
        peak = 24.0 * facing - 12.0 - 9.0 * bounce + patchy
        echo = _ridge(echo, depth - np.float32(gap * (1 + bounce)), 0.014, peak)
    return Tissue(echo, tissue.loss + np.where(depth > 0.04, np.float32(75.0), 0.0))


def nodule(
    rng: np.random.Generator, features: Features, scan: Scan, grid: Grid, around: Tissue
) -> tuple[Tissue, npt.NDArray[np.bool_]]:
    """The tissue with the nodule in it, and the nodule's mask, bool (rows, lines)."""
    size, shape = scan.nodule_size, grid.x.shape
    half = (0.5 * size / features.elongation**0.5, 0.5 * size * features.elongation**0.5)
    across = (grid.x - np.float32(scan.nodule_x)) / np.float32(half[0])
    down = (grid.z - np.float32(scan.nodule_z)) / np.float32(half[1])
    amplitude, low, high, edge = _OUTLINE[features.margin]
    waves = _waves(rng, np.arctan2(down, across), low, high)
    rho = np.hypot(across, down) / (1.0 + amplitude * waves)
    rho = rho + 0.5 * amplitude * noise(rng, shape, (22, 28))
    weight = np.clip(0.5 + (1.0 - rho) / (2.0 * edge), 0.0, 1.0)
    inner = features.echo_db + 1.3 * noise(rng, shape, (16, 20)) + noise(rng, shape, (45, 60))
    inner = _fluid(rng, features, rho, inner)
    echo = around.echo * (1.0 - weight) + inner * weight
    # Without any rim an isoechoic nodule would be a matter of faith.
    rim = 12.0 + 3.0 * noise(rng, shape, (8, 8)) if features.halo else np.float32(4.0)
    echo = echo - rim * np.maximum(1.0 - np.square((rho - 1.04) / np.float32(0.06)), 0.0)
    loss = around.loss - 20.0 * (inner <= ANECHOIC_DB + 8.0) * (rho < 1.0)
    return _foci(rng, features, grid, Tissue(echo, loss), rho), rho < 1.0


def _waves(rng: np.random.Generator, angle: Float32Array, low: int, high: int) -> Float32Array:
    """A closed outline's deviation from its ellipse, about unit variance, of orders low to high."""
    total = np.zeros_like(angle)
    for order in range(low, high + 1):
        weight, phase = rng.normal(0.0, (low / order) ** 0.5), rng.uniform(0.0, 2.0 * np.pi)
        total += np.float32(weight) * np.cos(order * angle + np.float32(phase))
    return total / np.float32((0.5 * (high - low + 1)) ** 0.5)


def _fluid(
    rng: np.random.Generator, features: Features, rho: Float32Array, inner: Float32Array
) -> Float32Array:
    """Hollow out the solid level map [dB] as the composition says."""
    pools, holes = noise(rng, rho.shape, (9, 11)), noise(rng, rho.shape, (42, 56))
    fluid = {
        "cystic": rho < 0.92,
        "spongiform": (holes > -0.1) & (rho < 0.9),
        "mixed": (pools > 0.2) & (rho < 0.85),
    }.get(features.composition)
    if fluid is None:
        return inner
    level = -18.0 if features.composition == "spongiform" else ANECHOIC_DB
    return np.where(fluid, np.float32(level), inner)


def _foci(
    rng: np.random.Generator, features: Features, grid: Grid, tissue: Tissue, rho: Float32Array
) -> Tissue:
    """Echogenic foci inside the nodule; those large enough cast a shadow."""
    if features.foci == "rim":
        arc = noise(rng, rho.shape, (6, 6)) > -0.5
        echo = _ridge(tissue.echo, rho - 1.0, 0.05, np.where(arc, np.float32(14.0), -40.0))
        return Tissue(echo, tissue.loss + 70.0 * (arc & (np.abs(rho - 1.0) < 0.05)))
    count, size, shadow, tail = {
        "none": (0, (0.0, 0.0), 0.0, 1.0),
        "comet-tail": (int(rng.integers(1, 4)), (0.008, 0.012), 0.0, 5.0),
        "macrocalcification": (int(rng.integers(1, 3)), (0.025, 0.045), 260.0, 1.0),
        "punctate": (int(rng.integers(7, 20)), (0.007, 0.011), 0.0, 1.0),
    }[features.foci]
    candidates = np.flatnonzero(rho < 0.75)
    echo, loss = tissue
    for place in rng.choice(candidates, count):
        x, z = grid.x.flat[place], grid.z[place // rho.shape[1], 0]
        radius = rng.uniform(*size)
        below = (grid.z - z) / np.where(grid.z > z, np.float32(tail), np.float32(0.7))
        far = np.hypot(grid.x - x, below)
        echo = _ridge(echo, far, radius, rng.uniform(13.0, 20.0))
        loss = loss + np.float32(shadow) * (far < 0.8 * radius)
    return Tissue(echo, loss)
