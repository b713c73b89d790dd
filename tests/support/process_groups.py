"""Processes that form a team by gloo, as Ray Train makes one, without Ray."""

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 300


def _join(meeting: Path, rank: int, size: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )


class Workers:
    """One process a rank; each runs what it is told, one thing after the other."""

    def __init__(self, size: int, folder: Path) -> None:
        self._pools = [
            ProcessPoolExecutor(
                1,
                mp_context=get_context("spawn"),
                initializer=_join,
                initargs=(folder / "meeting", rank, size),
            )
            for rank in range(size)
        ]

    def submit(self, function: Callable[..., Any], *arguments: object) -> list[Future[Any]]:
        return [pool.submit(function, *arguments) for pool in self._pools]

    def run(self, function: Callable[..., Any], *arguments: object) -> list[Any]:
        """What the function returned on each rank."""
        return [future.result(PATIENCE) for future in self.submit(function, *arguments)]

    def kill(self) -> None:
        """End processes that wait for each other."""
        for pool in self._pools:
            for process in (pool._processes or {}).values():
                process.kill()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in self._pools:
            pool.shutdown(wait=kind is None, cancel_futures=True)
