"""`thyro serve` end to end: a real server, real runs, and nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
from urllib.request import urlopen

import pytest

from flows.serving import deployments
from flows.serving.deployments import unbegun_automation
from tests.support.imagesets import write_image_set
from tests.support.prefectserver import (
    environment,
    free_port,
    prefect_server,
    processes_of,
    serving,
    thyro,
    wait_until,
)


def test_it_serves_a_run_and_leaves_nothing(tmp_path) -> None:
    source = write_image_set(tmp_path / "set", benign=4, malignant=3)
    (source / "images" / "none.png").write_text("no image")
    with serving(tmp_path, "--timezone", "Europe/Berlin") as server:
        assert server.url in server.said()
        (pages,) = re.findall(r"worklists at (http://127.0.0.1:\d+), for everybody", server.said())
        with urlopen(pages) as reply:
            assert "None yet" in reply.read().decode()
        assert "inactive until the night's images are named" in server.said()
        run = server.over(server.create("ingest", source=str(source)))
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        states = "included, benign: 4; included, malignant: 3; excluded, not_listed: 1"
        assert run["state"]["message"].endswith(f": {states}")
        lost = server.over(server.create("ingest", source=str(tmp_path / "gone")))
        assert lost["state_type"] == "FAILED"
        assert f"{tmp_path / 'gone'}: expected" in lost["state"]["message"]
        wait_until(lambda: "expected" in server.logs(lost["id"]), "its log arrives", 60)
        assert "Traceback" not in server.logs(lost["id"])
        assert {"thyro", "data"} <= set(run["tags"])
        shown = server.artifacts(run["id"])
        assert shown.keys() == {"table", "markdown", "progress"}
        assert '"included, benign", "images": "4"' in shown["table"][0]["data"]
        assert "not_listed" in shown["markdown"][0]["data"]
        assert shown["progress"][0]["data"] == 100.0
        assert "splits" in server.refusal("study", source="x", config={"splits": 1})
        assert "pattern" not in server.refusal("ingest", source="")
        assert server.stop() == 0, server.said()
        wait_until(lambda: not processes_of(server.home), f"all end: {processes_of(server.home)}")
        assert "Traceback" not in server.said()
        assert not list((tmp_path / "store" / "serving").glob("*")), "the record goes with it"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--timezone", "Europe/Atlantis"], "expected a name of the IANA list"),
        (["--cron", "whenever"], "expected five fields"),
        (["--store", "nosuch://place"], "nosuch"),
    ],
)
def test_bad_settings_are_one_sentence_and_exit_2(tmp_path, options, said) -> None:
    done = subprocess.run(
        thyro("serve", *options), env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_said_with_the_cure(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            thyro("serve", "--port", port),
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert f"127.0.0.1:{port}: expected a free port" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.slow
def test_the_nightly_schedule_fires_with_the_batch(tmp_path) -> None:
    """Each minute here, for the test; with no model promoted the run says so, once."""
    batch = write_image_set(tmp_path / "night", benign=2, malignant=2)
    night = ["--cron", "* * * * *", "--timezone", "Asia/Kolkata", "--batch", str(batch)]
    with serving(tmp_path, *night) as server:
        assert f"nightly run of {batch} at * * * * * (Asia/Kolkata)" in server.said()
        (schedule,) = server.deployment("screening")["schedules"]
        assert schedule["active"]
        assert schedule["schedule"]["timezone"] == "Asia/Kolkata"
        ended = {"FAILED", "COMPLETED"}

        def fired() -> list[dict[str, object]]:
            return [run for run in server.runs("screening") if run["state_type"] in ended]

        run = wait_until(fired, "a scheduled run ends")[0]
        assert run["auto_scheduled"]
        assert run["parameters"]["batch"] == str(batch)
        assert "champion" in run["state"]["message"] or "promote" in run["state"]["message"]
        assert server.task_runs(run["id"])["night"]["run_count"] == 1
        (failure,) = server.artifacts(run["id"])["markdown"]
        assert failure["key"] == "screening-failure"
        assert server.deployment("screening")["global_concurrency_limit"]["limit"] == 1


@pytest.mark.slow
def test_sigterm_stops_it_too_and_its_runs_are_cancelled(tmp_path) -> None:
    source = write_image_set(tmp_path / "set")
    with serving(tmp_path) as server:
        server.create("study", source=str(source), config=LONG)
        wait_until(lambda: training(server.home), "a split is trained")
        assert server.stop(signal.SIGTERM) == 0, server.said()
        wait_until(lambda: not processes_of(server.home), "all processes end", 30)


@pytest.mark.slow
def test_a_kill_9_leaves_no_process(tmp_path) -> None:
    source = write_image_set(tmp_path / "set")
    with serving(tmp_path) as server:
        server.create("study", source=str(source), config=LONG)
        wait_until(lambda: training(server.home), "a split is trained")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not processes_of(server.home), "all processes end", 30)


LONG = {
    "architectures": ["resnet18"], "splits": 2, "epochs": 1000, "image_size": 64,
    "batch_size": 8, "weights": "none", "resamples": 100, "blur_bound": 0,
}  # fmt: skip


def training(home) -> list[str]:
    return [line for line in processes_of(home).values() if line.startswith("ray::s")]


@pytest.mark.slow
def test_a_server_that_runs_is_used_and_left_running(tmp_path) -> None:
    (tmp_path / "server").mkdir()
    with prefect_server(tmp_path / "server") as api:
        for _ in range(2):
            with serving(tmp_path, PREFECT_API_URL=api) as server:
                assert server.url in server.said()
                assert "starting a Prefect server" not in server.said()
                automations = server.ask("/automations/filter", {})
                assert len([each for each in automations if "thyro" in each["name"]]) == 2
                assert not server.deployment("ingest")["paused"]
                assert server.stop() == 0, server.said()
                assert server.deployment("ingest")["paused"], "nobody is there to run it"
        done = subprocess.run(
            thyro("serve", "--port", api.rsplit(":", 1)[1].removesuffix("/api")),
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"a Prefect server runs there: set PREFECT_API_URL={api}" in done.stderr


@pytest.mark.slow
def test_a_run_whose_machine_died_is_called_crashed_and_makes_room(tmp_path) -> None:
    """No heartbeat for two minutes: the automation, not anybody's patience, ends it."""
    source = write_image_set(tmp_path / "set")
    (tmp_path / "server").mkdir()
    with (
        prefect_server(tmp_path / "server") as api,
        serving(tmp_path, PREFECT_API_URL=api) as server,
    ):
        run_id = server.create("study", source=str(source), config=LONG)
        wait_until(lambda: training(server.home), "a split is trained")
        for dead in processes_of(server.home):
            os.kill(dead, signal.SIGKILL)
        server.process.wait()
        assert server.state(run_id) == "RUNNING"
        wait_until(lambda: server.state(run_id) == "CRASHED", "it is called crashed")
        assert "No sign of life" in server.run(run_id)["state"]["message"]
        assert server.deployment("study")["global_concurrency_limit"]["active_slots"] == 0


@pytest.mark.slow
def test_a_run_that_died_before_it_began_is_called_crashed_and_makes_room(
    tmp_path, monkeypatch
) -> None:
    """No heartbeat yet: what was to start it is gone. Here the wait is ten seconds."""
    with serving(tmp_path) as server:
        monkeypatch.setattr(deployments, "_BEGIN_SECONDS", 10)
        automation = unbegun_automation().model_dump(mode="json", exclude_unset=True)
        (ours,) = [
            each["id"]
            for each in server.ask("/automations/filter", {})
            if each["name"] == automation["name"]
        ]
        server.ask(f"/automations/{ours}", automation, "PUT")
        path = f"/deployments/{server.deployment('study')['id']}/create_flow_run"
        # So that nobody starts it.
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
        run_id = server.ask(path, {"parameters": {"source": "nowhere"}, "state": later})["id"]
        pending = {"state": {"type": "PENDING", "name": "Submitting"}}
        server.ask(f"/flow_runs/{run_id}/set_state", pending)
        if server.state(run_id) == "PENDING":
            assert server.deployment("study")["global_concurrency_limit"]["active_slots"] == 1
        wait_until(lambda: server.state(run_id) == "CRASHED", "it is called crashed", 120)
        assert "It did not begin" in server.run(run_id)["state"]["message"]
        wait_until(
            lambda: server.deployment("study")["global_concurrency_limit"]["active_slots"] == 0,
            "its place is free", 30,
        )  # fmt: skip


@pytest.mark.slow
def test_two_first_starts_at_once_share_a_new_home(tmp_path) -> None:
    """Both would make the database: one does, and the other waits."""
    source = write_image_set(tmp_path / "set")
    (tmp_path / "home").mkdir()
    config = [f"--set={key}={json.dumps(value)}" for key, value in (LONG | {"epochs": 1}).items()]
    studies = [
        subprocess.Popen(
            thyro("study", str(source), "--store", str(tmp_path / f"store-{number}"), *config),
            cwd=tmp_path,
            env=environment(tmp_path / "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    for study in studies:
        said, _ = study.communicate(timeout=900)
        assert study.returncode == 0, said
        assert "locked" not in said


@pytest.mark.slow
def test_a_server_with_a_password_lets_in_only_who_knows_it(tmp_path) -> None:
    locked, guest = tmp_path / "locked", tmp_path / "guest"
    locked.mkdir()
    guest.mkdir()
    auth = {"PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_API_AUTH_STRING": "a:b"}
    with serving(locked, **auth) as server:
        done = subprocess.run(
            thyro("serve"),
            cwd=guest,
            env=environment(guest, PREFECT_API_URL=f"{server.url}/api"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2, done.stderr
        assert "found status 401" in done.stderr
        assert "PREFECT_API_AUTH_STRING" in done.stderr


def test_an_address_that_does_not_answer_is_said(tmp_path) -> None:
    dead = f"http://127.0.0.1:{free_port()}/api"
    done = subprocess.run(
        thyro("serve", "--host", "192.0.2.1"),
        cwd=tmp_path,
        env=environment(tmp_path, PREFECT_API_URL=dead),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert f"PREFECT_API_URL={dead} does not answer" in done.stderr
    assert "everybody in your network" in done.stderr
    assert "192.0.2.1:4200: expected a free port" in done.stderr


@pytest.mark.slow
def test_schedules_that_people_added_stay_when_it_starts_again(tmp_path) -> None:
    added = {"schedule": {"cron": "5 4 * * 0", "timezone": "UTC"}, "active": True}
    name_of = {"study": None, "screening": "weekly"}
    with serving(tmp_path) as server:
        for name, slug in name_of.items():
            path = f"/deployments/{server.deployment(name)['id']}/schedules"
            server.ask(path, [added | {"slug": slug, "parameters": {"source": "x"}}])
        assert server.stop() == 0
    with serving(tmp_path) as server:
        for name, slug in name_of.items():
            theirs = [s for s in server.deployment(name)["schedules"] if s["slug"] != "nightly"]
            (kept,) = theirs
            assert kept["schedule"]["cron"] == "5 4 * * 0"
            assert (kept["slug"], kept["active"]) == (slug, True)
            assert kept["parameters"] == {"source": "x"}
        slugs = {schedule["slug"] for schedule in server.deployment("screening")["schedules"]}
        assert slugs == {"nightly", "weekly"}
