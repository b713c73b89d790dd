"""What a store no longer needs: listed with its size, removed only on request.

Nothing but the kinds below is ever a candidate, so tables, kept models, the registry, weights and
packs cannot be. What an unconcluded study may still need stays.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from thyro_core.config import Architecture
from thyro_core.store.keys import (
    EVALUATIONS,
    PACKS,
    checkpoint_key,
    checkpoints_folder,
    pack_key,
    progress_folder,
)
from thyro_core.store.store import TEMPORARY, Store
from thyro_core.study.plan import study_ids
from thyro_core.study.status import Traces, read_traces

STALE_SECONDS = 86_400.0
"""A temporary file this old [s] belongs to no write that is still going on."""

Kind = Literal["checkpoint", "progress", "evaluation progress", "temporary file", "scratch copy"]


@dataclass(frozen=True)
class Garbage:
    """One thing that can go.

    Attributes:
        kind: What it is.
        place: Its key in the store; of a scratch copy, its path on this machine.
        size: Its size [bytes].
    """

    kind: Kind
    place: str
    size: int


def find_garbage(store: Store, scratch: Path, now: float) -> list[Garbage]:
    """All that can go, by kind and place.

    * checkpoints of finished runs, and of concluded studies whatever they are;
    * positions of the jobs of concluded studies;
    * scores of finished evaluations, which their table holds;
    * unfinished temporary files of a local store, a day old;
    * this machine's copies of packs that no unfinished study of this store needs.

    Args:
        store: the store to look through.
        scratch: this machine's folder for copies.
        now: the present as Unix time [s].
    """
    studies = [read_traces(store, study_id) for study_id in study_ids(store)]
    items = [garbage for traces in studies for garbage in _study_garbage(store, traces)]
    items += _evaluation_progress(store)
    items += _temporary_files(store, now)
    items += _scratch_copies(store, scratch, studies)
    return sorted(items, key=lambda garbage: (garbage.kind, garbage.place))


def remove(store: Store, garbage: Iterable[Garbage]) -> int:
    """Remove garbage; a thing that is already gone is no error.

    Returns:
        The size of all that was removed [bytes].
    """
    size = 0
    for each in garbage:
        if each.kind == "scratch copy":
            Path(each.place).unlink(missing_ok=True)
        else:
            store.delete(each.place)
        size += each.size
    return size


def _is_concluded(traces: Traces) -> bool:
    runs = traces.plan.config.splits * len(traces.plan.config.architectures)
    return traces.has_metrics and len(traces.finished_runs) == runs


def _study_garbage(store: Store, traces: Traces) -> Iterator[Garbage]:
    study_id = traces.plan.study_id
    if _is_concluded(traces):
        yield from _objects_below(store, "checkpoint", checkpoints_folder(study_id))
        yield from _objects_below(store, "progress", progress_folder(study_id))
        return
    for split, architecture in sorted(traces.finished_runs & traces.checkpoints):
        yield from _objects_below(
            store, "checkpoint", checkpoint_key(study_id, split, architecture)
        )


def _objects_below(store: Store, kind: Kind, prefix: str) -> Iterator[Garbage]:
    """Every object at or below a key, with its size."""
    keys = [prefix] if store.fs.isfile(store.path(prefix)) else store.keys(prefix)
    for key in keys:
        yield Garbage(kind, key, int(store.fs.size(store.path(key)) or 0))


def _evaluation_progress(store: Store) -> Iterator[Garbage]:
    """What a stop between an evaluation's record and its end left."""
    keys = store.keys(EVALUATIONS)
    finished_folders = {key.rsplit("/", 1)[0] for key in keys if key.endswith("/evaluation.json")}
    for key in keys:
        if key.endswith(".npy") and key.rsplit("/", 1)[0] in finished_folders:
            yield from _objects_below(store, "evaluation progress", key)


def _temporary_files(store: Store, now: float) -> Iterator[Garbage]:
    """Of a local store: objects of a remote store appear whole or not at all."""
    if not isinstance(store.fs, LocalFileSystem):
        return
    for file in sorted(Path(store.path(TEMPORARY)).glob("*.tmp")):
        status = file.stat()
        if now - status.st_mtime > STALE_SECONDS:
            yield Garbage("temporary file", f"{TEMPORARY}/{file.name}", status.st_size)


def _scratch_copies(store: Store, scratch: Path, studies: Iterable[Traces]) -> Iterator[Garbage]:
    needed_keys = {
        key for traces in studies if not _is_concluded(traces) for key in _pack_keys(traces)
    }
    if isinstance(store.fs, LocalFileSystem):
        return  # its packs are used where they lie
    for key in store.keys(PACKS):
        copy = store.scratch_copy(key, scratch)
        if key not in needed_keys and copy.is_file():
            yield Garbage("scratch copy", str(copy), copy.stat().st_size)


def _pack_keys(traces: Traces) -> Iterator[str]:
    config = traces.plan.config
    names: tuple[Architecture, ...] = config.architectures
    return (pack_key(traces.plan.manifest_id, config.side(name)) for name in names)
