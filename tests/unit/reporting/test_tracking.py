"""A study in a tracking server: whole, once, and without anything of a person or this machine.

Against a real MLflow server where there is one (its program on the PATH, or in THYRO_TEST_MLFLOW),
and against a stand-in that keeps what it is sent.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest

from tests.support.finished_study import copy_of
from thyro_core import NOTICE
from thyro_core.config import StudyConfig
from thyro_core.errors import InputError, StoreError
from thyro_core.registry.bundle import Bundle
from thyro_core.reporting.tracking import server as module
from thyro_core.reporting.tracking.server import TrackingServer
from thyro_core.reporting.tracking.study_runs import (
    EXPERIMENT,
    PRIVATE_KEYS,
    public_params,
    track_study,
)
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table
from thyro_core.validation.config import ModelChoice
from thyro_core.validation.model import find_model

pytestmark = pytest.mark.usefixtures("one_thread")

Bundled = tuple[Store, StudyPlan, Bundle, Path]


@pytest.fixture(scope="module")
def bundled(finished, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    original, plan = finished
    folder = tmp_path_factory.mktemp("tracked")
    store = copy_of(original, folder / "store")
    bundle = find_model(store, ModelChoice(model=plan.study_id), folder / "scratch")
    return store, plan, bundle, folder / "scratch"


class StandIn:
    """As much of a server as the client asks for."""

    def __init__(self) -> None:
        self.runs: dict[str, dict] = {}
        self.files: dict[str, bytes] = {}
        self.bodies: list[bytes] = []
        self.has_experiment = False
        self.scheme = "mlflow-artifacts"
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        if self.status != 200:
            return httpx.Response(self.status, text="somebody's words")
        path = request.url.path
        if "mlflow-artifacts" in path:
            self.files[path.split("/artifacts/", 1)[1]] = request.content
            return httpx.Response(200, json={})
        body = json.loads(request.content) if request.content else {}
        return getattr(self, path.rsplit("/", 1)[-1].replace("-", "_"))(body, request)

    def get_by_name(self, _: dict, request: httpx.Request) -> httpx.Response:
        assert parse_qs(request.url.query.decode()) == {"experiment_name": [EXPERIMENT]}
        if not self.has_experiment:
            return httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST"})
        return httpx.Response(200, json={"experiment": {"experiment_id": "7"}})

    def create(self, body: dict, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("experiments/create"):
            self.has_experiment = True
            return httpx.Response(200, json={"experiment_id": "7"})
        run_id = f"run{len(self.runs)}"
        info = {"run_id": run_id, "status": "RUNNING"}
        info["artifact_uri"] = f"{self.scheme}:/7/{run_id}/artifacts"
        self.runs[run_id] = body | {"info": info, "params": {}, "metrics": [], "gone": False}
        return httpx.Response(200, json={"run": {"info": info}})

    def search(self, body: dict, _: httpx.Request) -> httpx.Response:
        name, value = re.fullmatch(r"tags\.`(.+)` = '(.+)'", body["filter"]).groups()
        tag = {"key": name, "value": value}
        runs = [run for run in self.runs.values() if tag in run["tags"] and not run["gone"]]
        return httpx.Response(200, json={"runs": [{"info": run["info"]} for run in runs]})

    def log_batch(self, body: dict, _: httpx.Request) -> httpx.Response:
        run = self.runs[body["run_id"]]
        run["params"] |= {row["key"]: row["value"] for row in body.get("params", ())}
        run["metrics"] += body.get("metrics", ())
        assert len(body.get("params", ())) <= 100
        return httpx.Response(200, json={})

    def update(self, body: dict, _: httpx.Request) -> httpx.Response:
        self.runs[body["run_id"]]["info"]["status"] = body["status"]
        return httpx.Response(200, json={})

    def delete(self, body: dict, _: httpx.Request) -> httpx.Response:
        self.runs[body["run_id"]]["gone"] = True
        return httpx.Response(200, json={})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    replies, client = StandIn(), httpx.Client
    monkeypatch.setattr(
        module.httpx,
        "Client",
        lambda **more: client(**more, transport=httpx.MockTransport(replies)),
    )
    return replies


def test_each_run_goes_in_once_with_its_figures_and_the_model(
    bundled: Bundled, stand_in: StandIn
) -> None:
    store, plan, bundle, scratch = bundled
    server = TrackingServer("http://tracking.test:5000")
    first = track_study(store, bundle, server, scratch=scratch)
    assert (first.new_runs, first.old_runs) == (4, 0)
    runs = list(stand_in.runs.values())
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    parent, *children = runs
    tags = [{row["key"]: row["value"] for row in run["tags"]} for run in runs]
    assert all(each["mlflow.parentRunId"] == "run0" for each in tags[1:])
    assert {each["thyro.notice"] for each in tags} == {NOTICE}
    rows = read_table(store, "metrics", study_id=plan.study_id).to_pylist()
    auc = next(
        row["value"]
        for row in rows
        if (row["split"], row["level"], row["metric"]) == (1, "image", "auc")
    )
    found = {(each["key"], each["step"]): each["value"] for each in children[1]["metrics"]}
    assert found["auc", 0] == auc
    assert {step for key, step in found if key == "loss"} == {1, 2}
    means = {each["key"]: each["value"] for each in parent["metrics"]}
    assert 0 <= means["resnet18/image/auc"] <= 1
    names = {name.split("artifacts/", 1)[1] for name in stand_in.files}
    assert {"model/run.py", "model/card.md", "model/model.json", "figures/roc.svg"} <= names
    assert {f"model/split={split}.safetensors" for split in range(3)} <= names
    assert not any("gallery" in name for name in names)
    again = track_study(store, bundle, server, scratch=scratch)
    assert (again.new_runs, again.old_runs) == (0, 4)
    children[1]["info"]["status"] = "RUNNING"
    mended = track_study(store, bundle, server, scratch=scratch)
    assert (mended.new_runs, mended.old_runs) == (1, 3)
    assert children[1]["gone"]


def test_nothing_of_a_person_or_this_machine_is_sent(bundled: Bundled, stand_in: StandIn) -> None:
    store, plan, bundle, scratch = bundled
    track_study(store, bundle, TrackingServer("http://tracking.test:5000"), scratch=scratch)
    # Weights hold no text; all else that was sent does.
    weights = {data for name, data in stand_in.files.items() if name.endswith(".safetensors")}
    sent = b"\n".join(body for body in stand_in.bodies if body not in weights)
    images = read_table(store, "images", manifest_id=plan.manifest_id).to_pylist()
    places = [row["uri"] for row in images] + [plan.weights["resnet18"].origin, str(store.root)]
    private = [*places, str(Path.home()), socket.gethostname(), "patient-1", "labels.csv"]
    private += [row["image_id"][:12] for row in images]
    private += [row["patient_id"] for row in images]
    assert [text for text in private if text.encode() in sent] == []
    assert b"data:image" not in sent
    assert not PRIVATE_KEYS & public_params(plan).keys()
    assert StudyConfig.model_fields.keys() >= PRIVATE_KEYS


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mlruns", "expected the address of an MLflow server"),
        ("sqlite:///a.db", "expected the address of an MLflow server"),
        ("http://me:secret@host:5000", "without user, password and query"),
        ("http://host:5000/?token=secret", "without user, password and query"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as failure:
        TrackingServer(address)
    assert "secret" not in str(failure.value)


def test_what_the_server_refuses_is_said_in_own_words(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TrackingServer("http://tracking.test:5000")
    stand_in.status = 403
    with pytest.raises(InputError, match="found status 403; check who you are") as failure:
        server.experiment("thyro")
    assert "somebody" not in str(failure.value)
    stand_in.status = 503
    server._policy = RetryPolicy(attempts=2, first_wait=0.0, retry_on=server._policy._retry_on)
    with pytest.raises(StoreError, match="expected an MLflow server to answer"):
        server.experiment("thyro")
    stand_in.status, stand_in.scheme = 200, "s3"
    with pytest.raises(InputError, match="whose artifacts lie at s3"):
        server.create_run("7", "a", {})


@pytest.fixture(scope="module")
def mlflow_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = os.environ.get("THYRO_TEST_MLFLOW") or shutil.which("mlflow")
    if not program:
        pytest.skip("no MLflow server here: put `mlflow` on the PATH or into THYRO_TEST_MLFLOW")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.timeout(600)
def test_a_real_server_takes_it_all_and_gives_it_back(bundled: Bundled, mlflow_address) -> None:
    with closing(TrackingServer(mlflow_address)) as server:
        check_real_server(server, bundled)


def check_real_server(server: TrackingServer, bundled: Bundled) -> None:
    store, plan, bundle, scratch = bundled
    first = track_study(store, bundle, server, scratch=scratch)
    assert (first.new_runs, first.old_runs) == (4, 0)
    again = track_study(store, bundle, server, scratch=scratch)
    assert (again.new_runs, again.old_runs) == (0, 4)
    experiment = server.experiment(EXPERIMENT)
    runs = server.find_runs(experiment, "thyro.part", f"{plan.study_id} study")
    (run,) = runs
    api = f"{server.address}/api/2.0/mlflow"
    reply = httpx.get(f"{api}/runs/get", params={"run_id": run.run_id}).json()["run"]
    params = {row["key"]: row["value"] for row in reply["data"]["params"]}
    assert params["manifest_id"] == plan.manifest_id
    metrics = {row["key"]: row["value"] for row in reply["data"]["metrics"]}
    assert metrics["resnet18/image/auc"] == pytest.approx(
        next(
            row["value"]
            for row in read_table(store, "metrics", study_id=plan.study_id).to_pylist()
            if row["split"] is None and row["level"] == "image" and row["metric"] == "auc"
        )
    )
    listing = httpx.get(f"{api}/artifacts/list", params={"run_id": run.run_id, "path": "model"})
    names = {Path(each["path"]).name for each in listing.json()["files"]}
    assert {"run.py", "model.json", "card.md", "split=0.safetensors"} <= names
    place = f"{server.address}/api/2.0/mlflow-artifacts/artifacts/{run.folder}/model"
    data = httpx.get(f"{place}/split%3D0.safetensors").content
    assert hashlib.sha256(data).hexdigest() == bundle.card["files"]["split=0.safetensors"]
