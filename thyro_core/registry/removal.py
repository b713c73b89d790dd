"""Removal of a study: its tables' parts, checkpoints, models and report; images and packs stay."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from thyro_core.errors import InputError
from thyro_core.registry.champion import list_models
from thyro_core.store.keys import study_folder, study_key, study_lock_key, table_prefix
from thyro_core.store.lock import Lock
from thyro_core.store.store import Store
from thyro_core.tables.schemas import STUDY_TABLES


@dataclass(frozen=True)
class StudyObjects:
    """All objects that go with a study.

    Attributes:
        study_id: The study.
        keys: Of its objects, in the order in which they are removed: what names the study last, so
            that a removal that was cut short can be started again.
        sizes: Bytes by kind: `tables`, `models`, `checkpoints`, `report.html` and so on.
    """

    study_id: str
    keys: tuple[str, ...]
    sizes: dict[str, int]


def study_objects(store: Store, study_id: str) -> StudyObjects:
    """What a removal of a study would remove.

    Args:
        store: where it lies.
        study_id: the study.
    """
    last = (study_key(study_id), study_lock_key(study_id))
    every = [key for prefix in _prefixes(study_id) for key in store.keys(prefix)]
    keys = (*(key for key in every if key not in last), *(key for key in last if key in every))
    sizes: Counter[str] = Counter()
    for key in keys:
        kind = "tables" if key.startswith(table_prefix("")) else key.split("/")[2]
        sizes[kind] += int(store.fs.size(store.path(key)) or 0)
    return StudyObjects(study_id, keys, dict(sizes))


def check_removable(store: Store, study_id: str) -> None:
    """Make sure that no model was made of a study.

    Raises:
        InputError: one was, or the card of one is damaged, so that nobody knows.
    """
    for model in list_models(store):
        if model.fault is not None:
            msg = (
                f"study {study_id}: expected cards that tell which studies the models are of, "
                f"found: {model.fault}"
            )
            raise InputError(msg)
        if model.study_id == study_id:
            kind = "the champion" if model.is_champion else "a model"
            msg = (
                f"study {study_id}: expected a study that no model depends on, found {kind} "
                f"{model.model_id} made of it; a model's study is kept, as what its figures are of"
            )
            raise InputError(msg)


def remove_study(
    store: Store, study_id: str, owner: str, announce: Callable[[str], None] = lambda _: None
) -> StudyObjects:
    """Remove a study, while no start of it is at work.

    Args:
        store: where it lies.
        study_id: the study.
        owner: who removes it, as others read it in the study's lock.
        announce: called with the reason if a store's lock does not keep out a start of the study.

    Returns:
        What was removed.

    Raises:
        InputError: a model depends on it.
        LockedError: a start of the study is at work.
    """
    with Lock(store, study_lock_key(study_id), owner) as lock:
        if lock.weakness is not None:
            announce(lock.weakness)
        check_removable(store, study_id)
        objects = study_objects(store, study_id)
        lock.check()
        for key in objects.keys:
            store.delete(key)
    if isinstance(store.fs, LocalFileSystem):
        for prefix in _prefixes(study_id):
            _remove_empty_folders(Path(store.path(prefix)))
    return objects


def _prefixes(study_id: str) -> list[str]:
    parts = [f"{table_prefix(name)}/study_id={study_id}" for name in STUDY_TABLES]
    return [*parts, study_folder(study_id)]


def _remove_empty_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        # Something was written meanwhile: it stays.
        with suppress(OSError):
            Path(path).rmdir()
