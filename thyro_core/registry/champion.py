"""Which promoted model is in use, and every change of it: `registry/champion.json`.

The file is only ever swapped for a longer one: two promotions at once both stand in its history,
in some order, and a program that dies leaves it as it was.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from thyro_core.config import canonical_json
from thyro_core.errors import InputError, ThyroError
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS, load_bundle, model_ids
from thyro_core.store.compare_and_swap import (
    Versioned,
    compare_and_swap,
    conditional_writes_fault,
    read_versioned,
)
from thyro_core.store.keys import champion_key
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.store.store import Store
from thyro_core.urls import redact

MOST_LETTERS = 200
"""Length of a reason."""


class _ConflictError(Exception):
    """Another promotion changed the file first."""


_SWAPS = RetryPolicy(
    attempts=50,
    first_wait=0.001,
    longest_wait=0.05,
    retry_on=lambda error: isinstance(error, _ConflictError),
)


class Change(BaseModel):
    """One change of the champion."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    model_id: str
    before: Annotated[str | None, Field(alias="from")]
    """The champion before; null: none."""
    when: AwareDatetime
    how: Literal["promoted", "forced", "rollback"]
    why: str
    gate: str
    """The result of the comparison with the champion before."""


class Champion(BaseModel):
    """The champion and its history, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str
    history: Annotated[tuple[Change, ...], Field(min_length=1)]


@dataclass(frozen=True)
class ModelRow:
    """A promoted model in a listing."""

    model_id: str
    architecture: str
    study_id: str
    manifest_id: str
    auc: float | None
    """Of the ensemble, out of fold; of a card of version 1 the members' mean over splits."""
    threshold: float
    is_champion: bool
    changes: tuple[Change, ...]
    """When it became champion, oldest first."""
    note: str | None = None
    """What is to be known of a card of an earlier version."""
    fault: str | None = None
    """Why it cannot be used; then there are no other facts. None: its card is whole."""


def read_champion(store: Store) -> Champion | None:
    """The champion and its history; None: none was promoted yet.

    Raises:
        InputError: the file is damaged.
    """
    return _parse_champion(store, read_versioned(store, champion_key()))


def champion(store: Store) -> str:
    """The id of the model in use.

    Raises:
        InputError: none was promoted yet, or the file is damaged.
    """
    current = read_champion(store)
    if current is None:
        msg = (
            f"{redact(store.url)}: expected a promoted model, found none; promote a finished study "
            "first: thyro promote STUDY_ID"
        )
        raise InputError(msg)
    return current.model_id


def checked_reason(text: str) -> str:
    """A reason for the history, which is never deleted: one line of bounded length.

    Raises:
        InputError: it is empty, too long or not one printable line.
    """
    reason = text.strip()
    if not reason or len(reason) > MOST_LETTERS or not reason.isprintable():
        msg = (
            f"reason: expected one printable line of 1 to {MOST_LETTERS} letters, found "
            f"{len(reason)} letters; it is kept for ever and read by others: say why, name nobody"
        )
        raise InputError(msg)
    return reason


def set_champion(
    store: Store, model_id: str, how: Literal["promoted", "forced"], why: str,
    gate: Callable[[str | None], str],
) -> Change | None:  # fmt: skip
    """Make a model the champion.

    Args:
        store: where the models lie.
        model_id: the model; its bundle must be whole.
        how: promoted, or forced past a gate.
        why: the reason, see `checked_reason`.
        gate: called with the champion's id (None: none) right before each try, as it may have
            changed; returns how the two compare, or raises.

    Returns:
        The change; None: it is the champion already.

    Raises:
        InputError: the bundle, or champion.json, is damaged.
    """
    load_bundle(store, model_id)

    def change(old: Champion | None) -> Change | None:
        before = old.model_id if old else None
        if before == model_id:
            return None
        verdict = gate(before)
        now = datetime.now(UTC)
        return Change(
            model_id=model_id,
            before=before,
            when=now,
            how=how,
            why=checked_reason(why),
            gate=verdict,
        )

    return _append(store, change)


def rollback(store: Store, why: str = "rolled back") -> Change:
    """Make the model that was champion before the current one champion again.

    Once more goes one further back; what was rolled back from does not come again by itself.

    Raises:
        InputError: there is no champion, none before it, or its bundle is damaged.
    """

    def change(old: Champion | None) -> Change:
        standing = _standing(old)
        if len(standing) < 2:
            msg = (
                f"{redact(store.url)}: expected a champion before the current one, found "
                f"{'none' if standing else 'no champion at all'}; see `thyro models`"
            )
            raise InputError(msg)
        load_bundle(store, standing[-2])
        return Change(
            model_id=standing[-2], before=standing[-1], when=datetime.now(UTC), how="rollback",
            why=checked_reason(why), gate="not asked",
        )  # fmt: skip

    new = _append(store, change)
    if new is None:
        msg = "a rollback is always a change"
        raise AssertionError(msg)
    return new


def champion_weakness(store: Store) -> str | None:
    """Why a change could be lost if two programs made one at once; None: it cannot.

    Callers that make one announce it: some S3 servers know no conditional writes.
    """
    return conditional_writes_fault(store, champion_key())


def list_models(store: Store) -> list[ModelRow]:
    """All promoted models, the champion first, then by id.

    Raises:
        InputError: champion.json is damaged. A damaged card is a row with a fault.
    """
    current = read_champion(store)
    rows = [_model_row(store, model_id, current) for model_id in model_ids(store)]
    return sorted(rows, key=lambda row: (not row.is_champion, row.model_id))


def _model_row(store: Store, model_id: str, current: Champion | None) -> ModelRow:
    changes = tuple(
        change for change in (current.history if current else ()) if change.model_id == model_id
    )
    is_champion = current is not None and current.model_id == model_id
    try:
        bundle = load_bundle(store, model_id)
    except InputError as error:
        return ModelRow(
            model_id=model_id,
            architecture="",
            study_id="",
            manifest_id="",
            auc=None,
            threshold=math.nan,
            is_champion=is_champion,
            changes=changes,
            fault=str(error),
        )
    return ModelRow(
        model_id=model_id,
        architecture=bundle.architecture,
        study_id=bundle.card["study_id"],
        manifest_id=bundle.card["data"]["manifest_id"],
        auc=bundle.auc,
        threshold=bundle.threshold,
        is_champion=is_champion,
        changes=changes,
        note=FIGURES_OF_MEMBERS if bundle.is_of_version_1 else None,
    )


def _standing(current: Champion | None) -> list[str]:
    """Champions that a rollback can go back over, the current one last."""
    standing: list[str] = []
    for change in current.history if current else ():
        if change.how == "rollback":
            standing.pop()
        else:
            standing.append(change.model_id)
    return standing


def _append(store: Store, make: Callable[[Champion | None], Change | None]) -> Change | None:
    key = champion_key()

    def attempt() -> Change | None:
        record = read_versioned(store, key)
        old = _parse_champion(store, record)
        change = make(old)
        if change is None:
            return None
        history = (*(old.history if old else ()), change)
        new = Champion(model_id=change.model_id, history=history)
        data = canonical_json(new.model_dump(mode="json", by_alias=True)).encode()
        if not compare_and_swap(store, key, data, record):
            raise _ConflictError
        return change

    try:
        return _SWAPS.call(attempt, key)
    except RetriesExhaustedError as attempts_end:
        msg = (
            f"{key}: others changed it {attempts_end.attempts} times while we tried; start the "
            "command again"
        )
        raise ThyroError(msg) from attempts_end


def _parse_champion(store: Store, record: Versioned) -> Champion | None:
    if record.data is None:
        return None
    try:
        value = Champion.model_validate(json.loads(record.data))
        standing = _standing(value)
    except (ValueError, IndexError) as error:  # pydantic's, too
        raise _damaged_champion(store) from error
    if not standing or standing[-1] != value.model_id:
        raise _damaged_champion(store)
    return value


def _damaged_champion(store: Store) -> InputError:
    return InputError(
        f"{redact(store.url)}/{champion_key()}: expected the champion and its history, found "
        "a damaged file; restore it from a copy, or delete it and promote again"
    )
