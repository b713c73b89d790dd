"""Which study a person means by no id, or by the beginning of one."""

import json
from pathlib import Path

import pytest

from thyro_core.errors import InputError
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import find_study


def store_with(folder: Path, *ids: str) -> Store:
    store = open_store(str(folder))
    for study_id in ids:
        store.write(study_key(study_id), json.dumps({"study_id": study_id}).encode())
    return store


def test_the_only_study_needs_no_name(tmp_path: Path) -> None:
    store = store_with(tmp_path, "s0123456789abcdef")
    assert find_study(store) == find_study(store, "s01") == "s0123456789abcdef"


def test_a_beginning_is_enough_if_one_study_has_it(tmp_path: Path) -> None:
    store = store_with(tmp_path, "s0123456789abcdef", "s0223456789abcdef")
    assert find_study(store, "s02") == "s0223456789abcdef"
    for beginning in ("", "s0"):
        with pytest.raises(InputError, match=r"expected one study, found s012.*, s022.*; give"):
            find_study(store, beginning)


@pytest.mark.parametrize("beginning", ["", "s09"])
def test_no_study_is_said_with_those_there_are(tmp_path: Path, beginning: str) -> None:
    ids = ("s0123456789abcdef", "s0223456789abcdef") if beginning else ()
    with pytest.raises(InputError, match=r"expected a study.*, found (none|s012.*, s022.*); check"):
        find_study(store_with(tmp_path, *ids), beginning)
