"""Which model is in use: every change kept, none lost, and nothing half done."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cards import a_card_of_version_1, put_card
from tests.support.places import REPOSITORY
from thyro_core.errors import InputError, ThyroError
from thyro_core.registry import champion as champions
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS
from thyro_core.registry.card import card_bytes
from thyro_core.registry.champion import (
    champion,
    checked_reason,
    list_models,
    read_champion,
    rollback,
    set_champion,
)
from thyro_core.store.keys import bundle_prefix, card_key, champion_key
from thyro_core.store.store import Store, open_store


def asked(champion: str | None) -> str:
    return f"compared with {champion}"


def put(store: Store, *numbers: int) -> list[str]:
    return [put_card(store, number) for number in numbers]


def champions_in_turn(store: Store, *numbers: int) -> list[str]:
    ids = put(store, *numbers)
    for model_id in ids:
        assert set_champion(store, model_id, "promoted", "because", asked) is not None
    return ids


def moves(store: Store) -> list[tuple[str | None, str]]:
    found = read_champion(store)
    assert found
    return [(change.before, change.model_id) for change in found.history]


# The promises. Each takes an empty store of any kind.


def a_change_is_kept_with_its_reason(store: Store) -> None:
    a, b = put(store, 1, 2)
    first = set_champion(store, a, "promoted", "  first study ", asked)
    second = set_champion(store, b, "forced", "new device", asked)
    assert first
    assert second
    assert champion(store) == b
    plain = json.loads(store.read("registry/champion.json"))
    assert plain["model_id"] == b
    assert [row["from"] for row in plain["history"]] == [None, a]
    assert [row["why"] for row in plain["history"]] == ["first study", "new device"]
    assert [row["how"] for row in plain["history"]] == ["promoted", "forced"]
    assert [row["gate"] for row in plain["history"]] == ["compared with None", f"compared with {a}"]
    assert all(row["when"].endswith("Z") for row in plain["history"])
    assert first.when <= second.when


def going_back_goes_one_further_each_time(store: Store) -> None:
    a, b, c = champions_in_turn(store, 1, 2, 3)
    assert rollback(store).model_id == b
    assert champion(store) == b
    assert rollback(store, "worse in use").model_id == a
    with pytest.raises(InputError, match="expected a champion before the current one, found none"):
        rollback(store)
    assert champion(store) == a
    set_champion(store, c, "promoted", "again", asked)
    assert rollback(store).model_id == a
    assert moves(store) == [(None, a), (a, b), (b, c), (c, b), (b, a), (a, c), (c, a)]


def at_once_nothing_is_lost(store: Store) -> None:
    ids = put(store, *range(6))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda each: set_champion(store, each, "promoted", "race", asked), ids))
    found = moves(store)
    assert sorted(after for _, after in found) == ids
    assert [before for before, _ in found] == [None, *(after for _, after in found[:-1])]
    assert champion(store) == found[-1][1]


CONTRACT: tuple[Callable[[Store], None], ...] = (
    a_change_is_kept_with_its_reason,
    going_back_goes_one_further_each_time,
    at_once_nothing_is_lost,
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "file":
        yield open_store(f"file://{tmp_path}/store")
        return
    opened = open_store(f"memory://{uuid.uuid4().hex}/store")
    yield opened
    if opened.fs.exists(opened.root):
        opened.fs.rm(opened.root, recursive=True)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_promise(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


def test_none_yet_is_said_with_the_cure(store: Store) -> None:
    assert read_champion(store) is None
    assert list_models(store) == []
    with pytest.raises(InputError, match="found none; promote a finished study first: thyro prom"):
        champion(store)
    with pytest.raises(InputError, match="found no champion at all"):
        rollback(store)
    assert store.keys("") == []


def test_the_champion_again_changes_nothing(store: Store) -> None:
    (a,) = champions_in_turn(store, 1)
    before = store.read(champion_key())

    def never(_: str | None) -> str:
        raise AssertionError("asked the gate")

    assert set_champion(store, a, "forced", "again", never) is None
    assert store.read(champion_key()) == before


def test_the_gate_is_asked_about_the_champion_of_the_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = put(store, 1, 2, 3)
    set_champion(store, a, "promoted", "first", asked)
    real, raced = champions.compare_and_swap, []

    def swap(*arguments: object) -> bool:
        if not raced:
            raced.append(True)
            set_champion(store, b, "promoted", "faster", asked)
        return real(*arguments)

    monkeypatch.setattr(champions, "compare_and_swap", swap)
    seen = []
    set_champion(store, c, "promoted", "slower", lambda champion: seen.append(champion) or "ok")
    assert seen == [a, b]
    assert moves(store) == [(None, a), (a, b), (b, c)]


def test_a_gate_that_refuses_leaves_the_champion(store: Store) -> None:
    (a,) = champions_in_turn(store, 1)
    before = store.read(champion_key())
    (b,) = put(store, 2)

    def refuse(_: str | None) -> str:
        msg = "worse"
        raise ThyroError(msg)

    with pytest.raises(ThyroError, match="worse"):
        set_champion(store, b, "promoted", "try", refuse)
    assert store.read(champion_key()) == before
    assert champion(store) == a


def test_a_model_without_a_whole_card_is_not_crowned(store: Store) -> None:
    with pytest.raises(InputError, match="expected a promoted model b2, found none"):
        set_champion(store, "b2", "promoted", "because", asked)
    a, b = champions_in_turn(store, 1, 2)
    store.write(card_key(a), b"{}")
    with pytest.raises(InputError, match=f"expected the card of {a}"):
        rollback(store)
    assert champion(store) == b


def test_endless_conflicts_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (a,) = put(store, 1)
    monkeypatch.setattr(champions, "compare_and_swap", lambda *_: False)
    with pytest.raises(ThyroError, match="others changed it 50 times"):
        set_champion(store, a, "promoted", "because", asked)


CHANGE = {"model_id": "b1", "from": None, "when": "2026-01-01T00:00:00Z", "how": "promoted",
          "why": "x", "gate": "y"}  # fmt: skip


@pytest.mark.parametrize(
    "plain",
    [
        b"", b"half {", b"[]", {"model_id": "b1"}, {"model_id": "b1", "history": []},
        {"model_id": "b2", "history": [CHANGE]}, {"model_id": "b1", "history": [CHANGE], "x": 1},
        {"model_id": "b1", "history": [CHANGE | {"when": "2026-01-01T00:00:00"}]},
        {"model_id": "b1", "history": [CHANGE | {"how": "rollback"}]},
        {"model_id": "b1", "history": [CHANGE, CHANGE | {"how": "rollback"}]},
    ],
)  # fmt: skip
def test_a_damaged_history_is_refused_and_left_alone(store: Store, plain: object) -> None:
    data = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    store.write(champion_key(), data)
    (a,) = put(store, 1)
    for act in (
        lambda: champion(store), lambda: rollback(store), lambda: list_models(store),
        lambda: set_champion(store, a, "forced", "because", asked),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"champion\.json: expected the champion and its hist"):
            act()
    assert store.read(champion_key()) == data


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "bell\a", "x" * 201, "tab\there"])
def test_a_reason_is_one_line_of_bounded_length(text: str) -> None:
    with pytest.raises(InputError, match="expected one printable line of 1 to 200 letters"):
        checked_reason(text)


def test_a_good_reason_is_kept_as_it_is() -> None:
    assert checked_reason(" für das neue Gerät ") == "für das neue Gerät"
    assert len(checked_reason("x" * 200)) == 200


def test_the_listing_has_the_champion_first(store: Store) -> None:
    a, b, c = champions_in_turn(store, 1, 2, 3)
    rollback(store)
    (d,) = put(store, 4)
    store.write(f"{bundle_prefix('b' + '5' * 16)}/split=0.safetensors", b"half made")
    rows = list_models(store)
    assert [row.model_id for row in rows] == [b, a, c, d]
    assert [row.is_champion for row in rows] == [True, False, False, False]
    assert [len(row.changes) for row in rows] == [2, 1, 1, 0]
    assert (rows[0].auc, rows[0].threshold, rows[0].manifest_id) == (0.9, 0.25, "m1")


def test_a_model_of_version_1_is_listed_and_its_note_says_whose_figures_it_has(
    store: Store,
) -> None:
    old = a_card_of_version_1(1)
    store.write(card_key(old.model_id), card_bytes(old))
    set_champion(store, old.model_id, "promoted", "for the test", lambda _: "not asked")
    put_card(store, 2)
    rows = list_models(store)
    assert [(row.auc, row.threshold, row.fault) for row in rows] == [(0.9, 0.25, None)] * 2
    assert [row.note for row in rows] == [FIGURES_OF_MEMBERS, None]


VICTIM = """
import sys
from thyro_core.registry.champion import set_champion
from thyro_core.store.store import Store, open_store
store = open_store(sys.argv[1])
real = Store.writing
def writing(self, key):
    print("about to write", flush=True)
    sys.stdin.readline()
    return real(self, key)
Store.writing = writing
set_champion(store, sys.argv[2], "promoted", "victim", lambda _: "ok")
"""


def test_a_killed_promotion_leaves_the_champion_and_blocks_nobody(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (a,) = champions_in_turn(store, 1)
    b, c = put(store, 2, 3)
    before = store.read(champion_key())
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, store.url, b],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "about to write\n"
        process.kill()
    assert process.returncode == -9
    assert store.read(champion_key()) == before
    set_champion(store, c, "promoted", "next", asked)
    assert moves(store) == [(None, a), (a, c)]
