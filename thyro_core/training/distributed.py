"""The processes that train one network together, each on its share of every batch.

Whoever starts them (Ray Train, torchrun, a test) makes torch's process group; without one a
process is a group of one. All values that cross between the workers do so here.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


class PeerLostError(RuntimeError):
    """Another worker of the group is gone: this one has met no error of its own."""


@dataclass(frozen=True)
class WorkerGroup:
    """This worker's place among those that train a network together.

    Attributes:
        rank: From 0; the first one writes what comes of the training.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this worker writes: checkpoints, progress, tables and the model."""
        return self.rank == 0

    def shard(self, n: int) -> tuple[int, int]:
        """Start and stop of this worker's part of n images; it is empty where n is too small."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum of all workers' values, in place.

        Raises:
            PeerLostError: another worker is gone.
        """
        if self.size > 1:
            with _peers_alive():
                dist.all_reduce(values)
        return values

    def all_gather(self, values: Tensor) -> Tensor:
        """All workers' values by rank: size x shape.

        Raises:
            PeerLostError: another worker is gone.
        """
        if self.size == 1:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with _peers_alive():
            dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every worker the sum of all workers' gradients.

        In one flat vector, so that each element is summed in the same order in every step.
        DistributedDataParallel lays its buckets out anew after its first step: with three workers
        a run that went on from a checkpoint ended with other bits (measured).

        Raises:
            PeerLostError: another worker is gone.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def check_equal(self, value: int, what: str, device: torch.device) -> None:
        """Make sure that all workers found the same.

        Raises:
            RuntimeError: they did not.
        """
        ranks = self.all_gather(torch.tensor([value], device=device)).flatten().tolist()
        if len(set(ranks)) > 1:
            msg = f"{what}: expected the same for all workers of a job, found {ranks} by rank"
            raise RuntimeError(msg)


SINGLE_WORKER = WorkerGroup()
"""One process trains the network by itself."""


def current_group() -> WorkerGroup:
    """The worker group of this process, by torch's process group."""
    if dist.is_available() and dist.is_initialized():
        return WorkerGroup(dist.get_rank(), dist.get_world_size())
    return SINGLE_WORKER


@contextmanager
def _peers_alive() -> Iterator[None]:
    # Gloo and NCCL tell of a lost connection by a plain RuntimeError.
    try:
        yield
    except RuntimeError as error:
        msg = f"lost another worker of this job ({error})"
        raise PeerLostError(msg) from error
