"""A study goes whole or not at all; what a model depends on, and what others own, stays."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.unit.study.test_garbage import DONE, OPEN, contents, fill
from thyro_core.errors import InputError
from thyro_core.registry import removal
from thyro_core.registry.champion import ModelRow
from thyro_core.registry.removal import check_removable, remove_study, study_objects
from thyro_core.store.keys import study_key, study_lock_key
from thyro_core.store.lock import Lock, LockedError
from thyro_core.store.store import Store, open_store
from thyro_core.study.listing import ABANDONED_DAYS, list_studies
from thyro_core.study.plan import study_ids
from thyro_core.study.study_table import note_end, note_start


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = fill(open_store(str(tmp_path / "store")))
    store.delete("registry/champion.json")
    note_start(store, OPEN, ("memory://pictures",))
    return store


def a_model(study_id: str, *, is_champion: bool = False, fault: str | None = None) -> ModelRow:
    return ModelRow(
        model_id="m0123", architecture="vgg16", study_id=study_id, manifest_id="m1", auc=0.9,
        threshold=0.5, is_champion=is_champion, changes=(), fault=fault,
    )  # fmt: skip


def test_all_of_a_study_goes_and_nothing_else(store: Store) -> None:
    before = contents(store)
    objects = remove_study(store, OPEN.study_id, "a test")
    assert set(objects.keys) == {key for key in before if OPEN.study_id in key} | {
        study_lock_key(OPEN.study_id)
    }
    assert objects.sizes.keys() == {
        "tables", "checkpoints", "models", "progress", "runs", "config.json", "lock",
    }  # fmt: skip
    rest = {key: data for key, data in before.items() if OPEN.study_id not in key}
    assert contents(store) == rest
    assert list(Path(store.root).rglob(f"*{OPEN.study_id}*")) == []
    assert study_ids(store) == [DONE.study_id]


def test_what_names_the_study_goes_last(store: Store) -> None:
    objects = study_objects(store, OPEN.study_id)
    assert objects.keys[-1] == study_key(OPEN.study_id)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (a_model(OPEN.study_id), f"study {OPEN.study_id}: .* a model m0123 made of it"),
        (a_model(OPEN.study_id, is_champion=True), "found the champion m0123 made of it"),
        (a_model("", fault="its card is damaged"), "found: its card is damaged"),
    ],
)
def test_a_study_that_a_model_may_depend_on_stays(
    store: Store, model: ModelRow, reason: str
) -> None:
    before = contents(store)
    with patch.object(removal, "list_models", return_value=[model]):
        with pytest.raises(InputError, match=reason):
            remove_study(store, OPEN.study_id, "a test")
        if model.fault is None:
            check_removable(store, DONE.study_id)
    lock = study_lock_key(OPEN.study_id)
    assert {key: data for key, data in contents(store).items() if key != lock} == before


def test_a_study_that_is_at_work_stays(store: Store) -> None:
    key = study_lock_key(OPEN.study_id)
    with Lock(store, key, "its driver"), pytest.raises(LockedError, match="held by its driver"):
        remove_study(store, OPEN.study_id, "a test")
    assert study_ids(store) == [DONE.study_id, OPEN.study_id]


def test_the_command_says_how_much_goes_and_wants_a_yes(store: Store) -> None:
    arguments = ["rm", OPEN.study_id[:-4] + "o", "--store", store.url]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception).endswith("add --yes")
    assert study_ids(store) == [DONE.study_id, OPEN.study_id]
    done = CliRunner().invoke(app, [*arguments, "--yes"])
    assert re.search(r"\d B  checkpoints\n", done.stdout)
    assert f"removed study {OPEN.study_id}: " in done.stdout
    assert study_ids(store) == [DONE.study_id]


# The listing.


def state_of(store: Store, study_id: str) -> str:
    return {study.study_id: study.state for study in list_studies(store, datetime.now(UTC))}[
        study_id
    ]


def test_running_is_what_somebody_works_on(store: Store) -> None:
    assert state_of(store, OPEN.study_id) == "interrupted", "its program died"
    with Lock(store, study_lock_key(OPEN.study_id), "its driver"):
        assert state_of(store, OPEN.study_id) == "running"
    note_end(store, OPEN, "failed")
    assert state_of(store, OPEN.study_id) == "failed"


def test_abandoned_is_what_gave_no_sign_of_life_for_weeks(store: Store) -> None:
    with Lock(store, study_lock_key(OPEN.study_id), "its driver"):
        pass
    store.delete("tables/metrics/study_id=s00000000000done/part-0.parquet")
    now = datetime.now(UTC)
    later = now + timedelta(days=ABANDONED_DAYS, minutes=9)
    by_id = {study.study_id: study for study in list_studies(store, now)}
    assert not by_id[OPEN.study_id].is_abandoned(now)
    assert by_id[OPEN.study_id].is_abandoned(later)
    assert by_id[DONE.study_id].is_abandoned(now), "no time at all is known of it"
    told = CliRunner().invoke(app, ["gc", "--store", store.url]).stdout
    assert f"study {DONE.study_id} seems abandoned (interrupted, no sign of life): " in told
    assert f"study {OPEN.study_id}" not in told
