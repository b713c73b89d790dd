"""Adaptive average pooling whose backward pass adds in one order on a GPU too."""

import torch
from torch import Tensor, nn


class DeterministicPool(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling that a deterministic run can train through on a GPU.

    There torch's own backward pass adds in no fixed order, and refuses to run where determinism is
    requested. AlexNet and the VGG networks need it at image sizes whose feature map is not of the
    pooled size already. On a CPU the module is torch's own.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Average b x k x h x w values over the cells of the output size."""
        if values.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
            averages: Tensor = super().forward(values)
            return averages
        size = self.output_size
        height, width = (size, size) if size is None or isinstance(size, int) else size
        return pool_by_products(values, height or values.shape[2], width or values.shape[3])


def pool_by_products(values: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling as two products of matrices, whose order of sums is fixed.

    Args:
        values: b x k x h x w, float32 or bfloat16; the averages are made in float32.
        height: rows of the output.
        width: its columns.
    """
    rows = cell_weights(values.shape[2], height, values.device)
    columns = cell_weights(values.shape[3], width, values.device)
    with torch.autocast(values.device.type, enabled=False):
        averages = rows @ values.float() @ columns.T
    return averages.to(values.dtype)


def cell_weights(n: int, cells: int, device: torch.device) -> Tensor:
    """How much each of n values counts in each cell's average: float32, cells x n.

    Cells begin at the rounded down and end at the rounded up bounds of equal parts, as torch's do.
    Nothing is copied to the device, so that the pooling can be part of a CUDA graph.
    """
    cell = torch.arange(cells, device=device)[:, None]
    start, stop = cell * n // cells, -(-(cell + 1) * n // cells)
    place = torch.arange(n, device=device)
    inside = (place >= start) & (place < stop)
    return inside.float() / (stop - start).float()
