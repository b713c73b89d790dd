"""The flows in Prefect's real UI, as a person meets them: forms, refusals, runs, cancelling."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imagesets import write_image_set
from tests.support.prefectserver import Serving, processes_of, serving, wait_until
from tests.unit.study.test_split import contents
from thyro_core.store.store import open_store
from thyro_core.tables.io import read_table

pytestmark = pytest.mark.slow

# Long enough to be met in the middle, short enough to be finished afterwards.
STUDY = {
    "architectures": ["resnet18"], "splits": 2, "epochs": 60, "image_size": 64,
    "batch_size": 8, "weights": "none", "resamples": 100, "blur_bound": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def source(folder) -> str:
    return str(write_image_set(folder / "set"))


@pytest.fixture(scope="module")
def server(folder) -> Iterator[Serving]:
    with serving(folder, THYRO_CHECKPOINT_SECONDS="1") as found:
        yield found


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def open_deployment(page, server, name: str) -> None:
    page.goto(f"{server.url}/v2/deployments/deployment/{server.deployment(name)['id']}")


def press_run(page, how: str) -> None:
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=how).click()


def custom_run(page, server, name: str) -> None:
    open_deployment(page, server, name)
    press_run(page, "Custom run")
    page.get_by_label("source", exact=True).wait_for()


def field(page, label: str):
    # Where a form has groups a title begins with its group's.
    return page.get_by_label(re.compile(rf"^(\w+: )?{label}( \(Optional\))?$", re.IGNORECASE))


def newest(server, name: str, known: set[str]) -> str:
    """The run that is new."""

    def new() -> list[str]:
        return [run["id"] for run in server.runs(name) if run["id"] not in known]

    return wait_until(new, "a run")[0]


def known(server, name: str) -> set[str]:
    return {run["id"] for run in server.runs(name)}


def test_the_form_of_a_study_says_what_is_asked(page, server, tmp_path) -> None:
    custom_run(page, server, "study")
    text = page.locator("body").inner_text()
    for said in (
        "Never write a password or a key into it",
        "Networks to train",
        "Number of hold-out splits, or of folds. At least 2, at most 100.",
        "Empty: the server's own store",
        "Repeated stratified hold-out",
    ):
        assert said in text
    assert "Property is type" not in text, "no choice among types"
    labels = page.locator("label").all_inner_texts()
    assert labels.index("Study: architectures (Optional)") < labels.index(
        "Images: min side (Optional)"
    )
    page.screenshot(path=str(tmp_path / "study.png"), full_page=True)
    for name in ("resnet18", "alexnet", "vgg16", "inception_v3"):
        assert name in text


@pytest.mark.parametrize(
    ("label", "value"),
    [("Splits", "1"), ("Threshold", "1.5"), ("Epochs", "0"), ("Image Size", "8")],
)
def test_a_number_out_of_bounds_is_refused_in_the_form(page, server, source, label, value) -> None:
    before = known(server, "study")
    custom_run(page, server, "study")
    field(page, "source").fill(source)
    field(page, label).fill(value)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(1500)
    said = field(page, label).evaluate("field => field.validationMessage")
    shown = page.locator("body").inner_text()
    assert re.search("must be (greater|less) than|is greater than", said + shown), said + shown
    assert known(server, "study") == before
    assert page.url.rstrip("/").split("?")[0].endswith("/run")


@pytest.mark.parametrize("value", ["", "s3://key:secret@bucket/images"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(page, server, value) -> None:
    before = known(server, "ingest")
    custom_run(page, server, "ingest")
    field(page, "source").fill(value)
    page.get_by_role("button", name="Submit").click()
    page.get_by_text(re.compile("does not match|required", re.IGNORECASE)).first.wait_for()
    assert known(server, "ingest") == before
    database = (server.home / ".prefect" / "prefect.db").read_bytes()
    assert b"secret@bucket" not in database


def test_a_custom_run_is_filled_in_and_shows_its_artifacts(page, server, source, tmp_path) -> None:
    before = known(server, "ingest")
    custom_run(page, server, "ingest")
    field(page, "source").fill(source)
    field(page, "Min Side").fill("73")
    page.get_by_role("button", name="Submit").click()
    run_id = newest(server, "ingest", before)
    run = server.over(run_id)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"]["rules"]["min_side"] == 73
    page.goto(f"{server.url}/v2/runs/flow-run/{run_id}?tab=Artifacts")
    page.get_by_text("What to know of the set").first.wait_for()
    (states,) = server.artifacts(run_id)["table"]
    page.goto(f"{server.url}/v2/artifacts/artifact/{states['id']}")
    page.get_by_text("excluded, too_small").first.wait_for()
    image_id = read_table(open_store(str(server.home.parent / "store")), "images")["image_id"][0]
    page.screenshot(path=str(tmp_path / "states.png"))
    (notes,) = server.artifacts(run_id)["markdown"]
    assert f"| {image_id.as_py()[:12]} | too_small |" in notes["data"]
    assert image_id.as_py() not in notes["data"]


def test_a_quick_run_asks_for_what_is_required(page, server, source) -> None:
    before = known(server, "ingest")
    open_deployment(page, server, "ingest")
    press_run(page, "Quick run")
    field(page, "source").fill(source)
    page.get_by_role("button", name=re.compile("^(Run|Submit)$")).last.click()
    run = server.over(newest(server, "ingest", before))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]


def test_a_failure_says_what_to_do_and_is_not_tried_again(page, server) -> None:
    run = server.over(server.create("ingest", source="/no/such/folder"))
    assert run["state_type"] == "FAILED"
    assert "/no/such/folder" in run["state"]["message"]
    assert server.task_runs(run["id"])["images"]["run_count"] == 1
    (failure,) = server.artifacts(run["id"])["markdown"]
    assert failure["key"] == "ingest-failure"
    assert "/no/such/folder" in failure["data"]
    assert "Research use only" in failure["data"]
    page.goto(f"{server.url}/v2/runs/flow-run/{run['id']}?tab=Artifacts")
    page.get_by_text("What went wrong and what to do").first.wait_for()


def training(server) -> list[str]:
    return [line for line in processes_of(server.home).values() if line.startswith("ray::s")]


def ray(server) -> list[str]:
    return [line for line in processes_of(server.home).values() if "ray" in line]


def test_cancelling_in_the_ui_stops_ray_and_the_same_values_finish(page, server, source) -> None:
    store = open_store(str(server.home.parent / "store"))
    run_id = server.create("study", source=source, config=STUDY)
    wait_until(lambda: any("/checkpoints/" in key for key in store.keys("studies")), "a checkpoint")
    assert training(server)
    page.goto(f"{server.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("button", name=re.compile("open|menu|more", re.IGNORECASE)).last.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    wait_until(lambda: not ray(server), "Ray's processes end", 30)
    run = server.over(run_id)
    assert run["state_type"] == "CANCELLED"
    assert not read_table(store, "metrics").num_rows
    again = server.over(server.create("study", source=source, config=STUDY))
    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    assert read_table(store, "metrics").num_rows
    assert max(row["resumed_epochs"] for row in read_table(store, "runs").to_pylist()) >= 1
    assert not ray(server)
    shown = server.artifacts(again["id"])
    assert shown.keys() == {"table", "markdown", "progress"}
    assert any("resnet18" in table["data"] for table in shown["table"])
    assert all(bar["data"] == 100.0 for bar in shown["progress"])
    assert contents(store)


@pytest.mark.parametrize(("label", "wrong", "right"), [("Splits", "1", 3), ("Epochs", "0", 7)])
def test_a_corrected_field_can_be_submitted(page, server, label, wrong, right, tmp_path) -> None:
    before = known(server, "study")
    custom_run(page, server, "study")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text(re.compile("does not match|required", re.IGNORECASE)).first.wait_for()
    # It fails at once: what counts is that it is submitted, with these values.
    field(page, "source").fill("/no/such/folder")
    field(page, label).fill(wrong)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(1500)
    assert known(server, "study") == before
    field(page, label).fill(str(right))
    page.screenshot(path=str(tmp_path / "corrected.png"), full_page=True)
    page.get_by_role("button", name="Submit").click()
    run = server.over(newest(server, "study", before))
    assert run["parameters"]["config"][label.lower()] == right


def test_a_run_starts_again_from_the_last_ones_values(page, server, source) -> None:
    rules = {"min_side": 71, "blur_bound": 0}
    run_id = server.create("ingest", source=source, rules=rules)
    first = server.over(run_id)
    before = known(server, "ingest")
    page.goto(f"{server.url}/v2/runs/flow-run/{run_id}")
    page.get_by_role("button", name=re.compile("open|menu|more", re.IGNORECASE)).last.click()
    page.get_by_role("menuitem", name="Copy to new run").click()
    field(page, "source").wait_for()
    assert field(page, "source").input_value() == source
    assert field(page, "Min Side").input_value() == "71"
    page.get_by_role("button", name="Submit").click()
    again = server.over(newest(server, "ingest", before))
    assert again["parameters"]["source"] == first["parameters"]["source"]
    assert again["parameters"]["rules"].items() >= rules.items()
