"""The resumable state of a run, kept between epochs and gone when the run is done."""

import io
import logging
import pickle
import time
from dataclasses import asdict
from zipfile import BadZipFile

import torch

from thyro_core.config import RECIPE
from thyro_core.store.keys import checkpoint_key
from thyro_core.store.store import WRITE_ERRORS, Store
from thyro_core.training.loop import Run
from thyro_core.training.timer import RunCost, RunTimer

_LOG = logging.getLogger(__name__)


class RunCheckpoint:
    """Keeps the latest state of one run, at most once in so many seconds.

    A checkpoint costs three times the network's size to write; of short epochs, many go by without
    one. What is lost by a crash is at most that time, never the result. With the state it keeps
    what the run has cost so far.
    """

    def __init__(
        self, store: Store, study_id: str, split: int, architecture: str, timer: RunTimer
    ) -> None:
        self._store = store
        self._timer = timer
        self._key = checkpoint_key(study_id, split, architecture)
        self._name = {
            "study_id": study_id, "split": split, "architecture": architecture, "recipe": RECIPE,
        }  # fmt: skip
        self._last = time.monotonic()

    def save(self, run: Run, every_seconds: float) -> None:
        """Write the state if the last one, or the start, is that long ago [s].

        One attempt: a store that does not take it costs the run this checkpoint, and no more.
        """
        if time.monotonic() - self._last < every_seconds:
            return
        try:
            with self._store.without_retries().writing(self._key) as file:
                torch.save(self._name | asdict(self._timer.cost()) | run.state(), file)
        except (*WRITE_ERRORS, RuntimeError) as error:
            # torch's writer makes a RuntimeError of what its file raises.
            _LOG.warning("%s could not be kept (%s): training goes on", self._key, error)
        self._last = time.monotonic()

    def restore(self, run: Run, device: torch.device) -> None:
        """Put a run where its checkpoint stands; without a usable one it stays at its start."""
        if not self._store.exists(self._key):
            return
        try:
            buffer = io.BytesIO(self._store.read(self._key))
            state = torch.load(buffer, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, BadZipFile, EOFError, RuntimeError) as error:
            _LOG.warning("%s cannot be read (%s): starting this run anew", self._key, error)
            return
        if any(state.get(name) != value for name, value in self._name.items()):
            _LOG.warning("%s belongs to another run: starting this run anew", self._key)
            return
        run.restore(state)
        # Older checkpoints say nothing of their cost.
        self._timer.add_earlier(RunCost(state.get("seconds", 0.0), state.get("gpu_seconds", 0.0)))

    def delete(self) -> None:
        """Remove the state of a run that is done."""
        self._store.delete(self._key)
