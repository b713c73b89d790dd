"""Array types that several packages share; shapes stand in the docstrings that use them."""

from typing import Any

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
"""Grey levels of one or several images, 0 to 255."""

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

AnyIntArray = npt.NDArray[np.integer[Any]]
"""Integers of any width, as callers have them."""

AnyFloatArray = npt.NDArray[np.floating[Any]]
"""Floating-point numbers of any width, as callers have them."""
