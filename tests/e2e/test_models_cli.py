"""`thyro promote` and `thyro models` as their user runs them."""

import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.e2e.test_study_cli import environment
from tests.support.cards import put_card
from tests.support.finished_study import copy_of
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.registry import test_champion
from tests.unit.registry.test_champion import asked
from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.registry.champion import champion, set_champion
from thyro_core.registry.promote import PromotionConfig, promote
from thyro_core.store.keys import card_key, champion_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan

THYRO = str(Path(sys.executable).with_name("thyro"))


def thyro(*arguments: str, home: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [THYRO, *arguments],
        env=environment(home, OMP_NUM_THREADS="1", **extra),
        capture_output=True, text=True, timeout=240, cwd=home,
    )  # fmt: skip


def listed(store: Store, *options: str) -> str:
    """What `thyro models` prints, in this process; its errors are raised."""
    done = CliRunner().invoke(
        app, ["models", "--store", store.url, *options], catch_exceptions=False
    )
    return done.output


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_the_command_promotes_and_shows_the_card(
    finished: tuple[Store, StudyPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but Prefect's server, which the next test starts."""
    from flows import promote as module

    pages: list[str] = []
    monkeypatch.setattr(module, "promote", module.promote.fn)
    monkeypatch.setattr(module, "_promote", module._promote.fn)
    monkeypatch.setattr(module, "run_of", lambda _: nullcontext())
    # It lives as long as the process, and other tests' commands would find it.
    monkeypatch.setattr("flows.serving.command_server.prefect_server", nullcontext)
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("thyro.test"))
    monkeypatch.setattr(module.ProgressBar, "show", lambda *_: None)
    monkeypatch.setattr(module, "show_table", lambda *_: None)
    monkeypatch.setattr(module, "show_page", lambda _key, page, _said: pages.append(page))
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    arguments = ["promote", plan.study_id, "--store", store.url]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    model_id = champion(store)
    assert f"Model {model_id}" in done.output
    assert NOTICE in " ".join(done.output.split())
    assert "champion     yes" in done.output
    assert "Champion, the first one (promoted: promoted by hand)" in pages[0]
    assert "promise" not in done.output
    again = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(again.output.splitlines()[-1])["model_id"] == model_id
    assert "It was the champion already." in pages[1]
    shares = ["--bands", "conformal", "--routine-share", "0.25", "--refer-share", "0.25"]
    bands = CliRunner().invoke(app, [*arguments, *shares, "--json"], catch_exceptions=False)
    card = json.loads(bands.output.splitlines()[-1])["card"]
    assert card["bands"]["routine"]["share"] == 0.25
    assert "The bands' promise: Of patients with malignant images at most 25 % have" in pages[2]


@pytest.mark.slow
def test_the_flow_promotes_and_shows_the_card(
    finished: tuple[Store, StudyPlan], tmp_path: Path
) -> None:
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    arguments = ["promote", plan.study_id, "--store", store.url, "--reason", "first study"]
    done = thyro(*arguments, "--json", home=tmp_path, THYRO_SCRATCH=str(tmp_path / "scratch"))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["champion"] is True
    assert printed["model_id"] == champion(store)
    assert printed["notice"] == NOTICE
    assert printed["change"]["why"] == "first study"
    assert printed["card"]["study_id"] == plan.study_id
    database = sqlite3.connect(tmp_path / ".prefect" / "prefect.db")
    pages = database.execute("select key, data from artifact where type = 'markdown'").fetchall()
    (page,) = [data for key, data in pages if key == f"model-{printed['model_id']}"]
    assert NOTICE in page
    assert "Champion, the first one (promoted: first study)" in page
    database.close()
    for file in (tmp_path / ".prefect" / "prefect.db", Path(store.path(champion_key()))):
        assert b"patient-1" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "expected a study nope, found none; check the id and --store"),
        (["s" + "0" * 16, "--force"], "promote: force needs a reason"),
        (["s" + "0" * 16, "--sensitivity", "0"], "sensitivity: Input should be greater than 0"),
        (["s" + "0" * 16, "--architecture", "vgg18"], "architecture: .*vgg19"),
        (["s" + "0" * 16, "--routine-share", "0.2"], "refer_share take bands=conformal"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(
    arguments: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        CliRunner().invoke(app, ["promote", *arguments], catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_an_empty_registry_is_said(store: Store) -> None:
    assert "no model was promoted yet; `thyro promote STUDY_ID`" in listed(store)
    assert json.loads(listed(store, "--json")) == {
        "champion": None, "models": [], "history": [], "store": store.url, "notice": NOTICE,
    }  # fmt: skip


def test_models_are_listed_and_rolled_back(store: Store) -> None:
    a, b = put_card(store, 1), put_card(store, 2)
    set_champion(store, a, "promoted", "first [study]", asked)
    set_champion(store, b, "forced", "new device", asked)
    shown = listed(store)
    assert NOTICE in " ".join(shown.split())
    assert shown.index(b) < shown.index(a)
    assert f"promoted  {a} from none: first [study]; compared with None" in shown
    assert f"forced    {b} from {a}: new device; compared with {a}" in shown
    printed = json.loads(listed(store, "--rollback", "--reason", "worse in use", "--json"))
    assert printed["champion"] == a == champion(store)
    assert [row["model_id"] for row in printed["models"]] == [a, b]
    assert [row["champion"] for row in printed["models"]] == [True, False]
    assert printed["history"][-1] | {"when": ""} == {
        "model_id": a, "from": b, "when": "", "how": "rollback", "why": "worse in use",
        "gate": "not asked",
    }  # fmt: skip
    with pytest.raises(InputError, match="expected a champion before"):
        listed(store, "--rollback")
    with pytest.raises(InputError, match="expected a reason with --rollback only"):
        listed(store, "--reason", "just so")


def test_a_damaged_card_is_named_and_hides_no_other(store: Store) -> None:
    a, b = put_card(store, 1), put_card(store, 2)
    set_champion(store, b, "promoted", "because", asked)
    store.write(card_key(b), b"{")
    shown = listed(store)
    assert a in shown
    assert f"damaged registry/models/{b}/card.json: expected the card of {b}" in shown
    rows = json.loads(listed(store, "--json"))["models"]
    assert [(row["model_id"], row["fault"] is None) for row in rows] == [(b, False), (a, True)]
    assert rows[0]["threshold"] is None


@pytest.mark.slow
def test_importing_the_flow_loads_no_torch() -> None:
    script = (
        "import sys, flows.promote\n"
        "assert 'prefect' in sys.modules\n"
        "assert not {'torch', 'torchvision', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# On S3.


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield open_store(f"s3://{BUCKET}/promote")
    forget_clients()


@pytest.mark.parametrize("promise", test_champion.CONTRACT, ids=lambda promise: promise.__name__)
def test_the_registrys_promises_on_s3(bucket: Store, promise) -> None:
    promise(open_store(f"{bucket.url}/{promise.__name__}"))


@pytest.mark.slow
def test_a_promotion_on_s3(
    bucket: Store, finished: tuple[Store, StudyPlan], tmp_path: Path
) -> None:
    """A study whose store moved to a bucket is promoted there, and its members load from there."""
    from thyro_core.registry.ensemble import load_members

    local, plan = finished
    for key in local.keys(""):
        bucket.fs.put_file(local.path(key), bucket.path(key))
    done = promote(bucket, PromotionConfig(study_id=plan.study_id), tmp_path / "scratch")
    assert champion(bucket) == done.bundle.model_id
    assert len(load_members(done.bundle, bucket, tmp_path / "scratch")) == 3
    again = promote(bucket, PromotionConfig(study_id=plan.study_id), tmp_path / "scratch")
    assert again.change is None
