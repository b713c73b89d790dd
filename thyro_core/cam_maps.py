"""Grad-CAM maps as the table `cams` holds them; no network is needed to read one."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Maps = npt.NDArray[np.float32]


def stored_maps(cams: pa.Table) -> Maps:
    """Raw maps of some rows of the table `cams`, in their order: float32, rows x h x w.

    Raises:
        ValueError: the rows are of maps of several sizes (architectures), or there are none.
    """
    sizes = set(zip(cams["height"].to_pylist(), cams["width"].to_pylist(), strict=True))
    if len(sizes) != 1:
        msg = f"expected rows of one architecture, found maps of sizes {sorted(sizes)}"
        raise ValueError(msg)
    ((height, width),) = sizes
    flat = cams["map"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    shares = flat.astype(np.float64).reshape(-1, height, width)
    raw: Maps = (shares * cams["peak"].to_numpy()[:, None, None]).astype(np.float32)
    return raw
