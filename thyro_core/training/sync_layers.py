"""Layers that see the whole batch although each worker has only its share of it.

Batch norm takes its statistics over all shares, dropout and stochastic depth draw the whole batch's
mask on each worker: so all workers together compute what one process computes on the whole batch,
up to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from thyro_core.training import torchvision_compat
from thyro_core.training.distributed import WorkerGroup


@dataclass
class GlobalBatch:
    """The batch that the workers train on.

    Attributes:
        workers: Who shares it.
        size: Its images, those of all workers.
    """

    workers: WorkerGroup
    size: int = 0


@contextmanager
def sync_layers(model: nn.Module, workers: WorkerGroup, *, is_fused: bool) -> Iterator[GlobalBatch]:
    """Let a network's batch norm and dropout see whole batches for as long as the block runs.

    The layers put in place share parameters and buffers with those they stand for, under the same
    names. A single worker keeps the network as it is.

    Args:
        model: changed in place, and changed back at the end.
        workers: who trains it.
        is_fused: take torch's own SyncBatchNorm: GPUs only, and no worker without an image.

    Yields:
        The batch, whose size is to be set before each forward pass.
    """
    batch = GlobalBatch(workers)
    replacements: list[tuple[nn.Module, str, nn.Module]] = []
    if workers.size > 1:
        for parent in list(model.modules()):
            for name, layer in list(parent.named_children()):
                other = _counterpart(layer, batch, is_fused=is_fused)
                if other is not None:
                    replacements.append((parent, name, layer))
                    setattr(parent, name, other)
    try:
        yield batch
    finally:
        for parent, name, layer in replacements:
            setattr(parent, name, layer)


def _counterpart(layer: nn.Module, batch: GlobalBatch, *, is_fused: bool) -> nn.Module | None:
    if isinstance(layer, nn.Dropout):
        return SyncDropout(layer.p, batch).train(layer.training)
    if _is_stochastic_depth(layer):
        return SyncStochasticDepth(layer, batch).train(layer.training)
    if not isinstance(layer, nn.BatchNorm2d):
        return None
    sizes: dict[str, Any] = {"eps": layer.eps, "momentum": layer.momentum}
    other: nn.SyncBatchNorm | SyncBatchNorm
    if is_fused:
        other = nn.SyncBatchNorm(layer.num_features, **sizes)
    else:
        other = SyncBatchNorm(layer.num_features, batch.workers, **sizes)
    other.weight, other.bias = layer.weight, layer.bias
    other.running_mean, other.running_var = layer.running_mean, layer.running_var
    other.num_batches_tracked = layer.num_batches_tracked
    return other.train(layer.training)


def _is_stochastic_depth(layer: nn.Module) -> bool:
    torchvision_compat.ensure()
    from torchvision.ops import StochasticDepth

    return isinstance(layer, StochasticDepth)


class SyncDropout(nn.Module):
    """Dropout with this worker's part of the mask that one process would draw."""

    def __init__(self, p: float, batch: GlobalBatch) -> None:
        super().__init__()
        self._p = p
        self._batch = batch

    def forward(self, values: Tensor) -> Tensor:
        """Drop values of this worker's images; as they are in evaluation mode."""
        if not self.training:
            return values
        start, stop = self._batch.workers.shard(self._batch.size)
        shape = (self._batch.size, *values.shape[1:])
        mask = functional.dropout(values.new_ones(shape), self._p)
        return values * mask[start:stop]


class SyncStochasticDepth(nn.Module):
    """Stochastic depth by image, with the choice that one process would make of the whole batch."""

    def __init__(self, layer: nn.Module, batch: GlobalBatch) -> None:
        super().__init__()
        self._layer = layer
        self._batch = batch

    def forward(self, values: Tensor) -> Tensor:
        """Drop this worker's images, each as a whole; as they are in evaluation mode."""
        if not self.training:
            return values
        start, stop = self._batch.workers.shard(self._batch.size)
        ones = values.new_ones((self._batch.size, *[1] * (values.dim() - 1)))
        factors: Tensor = self._layer(ones)
        return values * factors[start:stop]


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over all workers' images, on any device; a worker may have none."""

    def __init__(self, features: int, workers: WorkerGroup, **options: Any) -> None:  # noqa: ANN401
        super().__init__(features, **options)
        self._workers = workers

    def forward(self, values: Tensor) -> Tensor:
        """Normalise this worker's images: n x features x h x w, float32 or bfloat16."""
        if not self.training:
            return super().forward(values)
        with torch.no_grad():
            moments = _moments(values, self._workers)
            self._track(moments)
        output: Tensor = _Normalise.apply(values, self.weight, self.bias, moments, self.eps)  # type: ignore[no-untyped-call]
        return output

    def _track(self, moments: "_Moments") -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        unbiased_var = moments.var * (moments.count / (moments.count - 1))
        self.running_mean.lerp_(moments.mean, self.momentum)
        self.running_var.lerp_(unbiased_var, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


@dataclass(frozen=True)
class _Moments:
    """Mean and biased variance per feature, and number of values, over all workers."""

    mean: Tensor
    var: Tensor
    count: int
    workers: WorkerGroup


def _moments(values: Tensor, workers: WorkerGroup) -> _Moments:
    features = values.shape[1]
    own = torch.zeros(2 * features + 1, dtype=torch.float64, device=values.device)
    if len(values):
        var, mean = torch.var_mean(_wide(values), dim=_other(values), correction=0)
        own[:features], own[features:-1] = mean, var
        own[-1] = values.numel() // features
    parts = workers.all_gather(own)
    means, variances, counts = parts[:, :features], parts[:, features:-1], parts[:, -1:]
    total = counts.sum()
    mean = (counts * means).sum(dim=0) / total
    # Chan et al. 1983: no difference of large numbers.
    var = (counts * (variances + (means - mean) ** 2)).sum(dim=0) / total
    kind = _wide(values).dtype
    return _Moments(mean.to(kind), var.to(kind), int(total), workers)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _other(values: Tensor) -> list[int]:
    return [dim for dim in range(values.dim()) if dim != 1]


class _Normalise(torch.autograd.Function):
    """The forward pass is torch's; the backward pass sums over all workers."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        moments: _Moments,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, moments.mean, torch.rsqrt(moments.var + eps))
        ctx.moments = moments
        return functional.batch_norm(
            values, moments.mean, moments.var, weight, bias, training=False, eps=eps
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        values, weight, mean, inverse = ctx.saved_tensors
        shape = [1, -1, *[1] * (values.dim() - 2)]
        slope = _wide(gradient)
        scaled_values = (_wide(values) - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([slope.sum(_other(values)), (slope * scaled_values).sum(_other(values))])
        whole = ctx.moments.workers.all_reduce(own.clone()) / ctx.moments.count
        inner = slope - whole[0].view(shape) - scaled_values * whole[1].view(shape)
        back = inner * (weight * inverse).view(shape)
        # The workers add up the gradients of all parameters: here each worker gives its own part.
        return back.to(values.dtype), own[1], own[0], None, None
