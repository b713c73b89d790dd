"""What is served, what the files in `deployments/` say, and that a real server takes both."""

import asyncio
import json
import subprocess
import sys
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.automations import AutomationCore
from prefect.server.schemas.schedules import CronSchedule

from flows.serving.deployments import (
    COLLISION,
    ENTRY_POINTS,
    TAG,
    NightlySchedule,
    deployments,
    load_flow,
    unbegun_automation,
)
from flows.serving.deployments import zombie_automation as zombie
from tests.support.places import REPOSITORY
from tests.support.prefectserver import environment, serving
from thyro_core import NOTICE
from thyro_core.errors import InputError

FOLDER = REPOSITORY / "deployments"
NIGHT = NightlySchedule("0 2 * * *", "Europe/Berlin", "s3://bucket/night")
POOLS = {"process": "thyro", "kubernetes": "thyro-kubernetes"}
NO_NIGHT = NightlySchedule("0 2 * * *", "UTC", None)


FILE_OF_POOL = {"process": "prefect.yaml", "kubernetes": "prefect-kubernetes.yaml"}


def declared(pool: str) -> dict[str, dict]:
    found = yaml.safe_load((FOLDER / FILE_OF_POOL[pool]).read_text())
    return {entry["name"]: entry for entry in found["deployments"]}


def test_the_flows_are_served() -> None:
    names = ["study", "ingest", "promote", "evaluate", "screening"]
    assert [entry.name for entry in ENTRY_POINTS] == names
    assert len({entry.description for entry in ENTRY_POINTS}) == len(ENTRY_POINTS)
    for entry in ENTRY_POINTS:
        assert load_flow(entry).name == entry.name
        assert "Research use only" in entry.description
        assert NOTICE.startswith("Research use only")


@pytest.mark.parametrize("pool", POOLS)
def test_prefect_yaml_says_the_same(pool) -> None:
    found = declared(pool)
    assert found.keys() == {f"{entry.name}-{pool}" for entry in ENTRY_POINTS}
    for entry in ENTRY_POINTS:
        plain = found[f"{entry.name}-{pool}"]
        assert plain["entrypoint"] == entry.entrypoint
        assert plain["description"] == entry.description
        assert plain["tags"] == [TAG, *entry.tags]
        assert plain["concurrency_limit"] == {
            "limit": entry.at_once,
            "collision_strategy": COLLISION,
        }
        assert plain["enforce_parameter_schema"] is True
        assert plain["work_pool"]["name"] == POOLS[pool]
        assert ("schedules" in plain) is entry.nightly


@pytest.mark.parametrize("pool", POOLS)
def test_prefect_yaml_holds_no_path_of_a_machine(pool) -> None:
    plain = yaml.safe_load((FOLDER / FILE_OF_POOL[pool]).read_text())
    assert plain["pull"] == []
    assert all(" " not in entry["entrypoint"] for entry in plain["deployments"])
    assert all("/" not in entry["entrypoint"] for entry in plain["deployments"])


def test_automations_yaml_says_the_same() -> None:
    plain = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
    exclude = {"trigger": {"id"}, "actions": {"__all__": {"id"}}}
    for entry, wanted in zip(plain, (zombie(), unbegun_automation()), strict=True):
        found = AutomationCore.model_validate(entry)
        assert found.model_dump(exclude=exclude) == wanted.model_dump(exclude=exclude)


def test_the_job_template_uses_each_variable_and_names_no_secret() -> None:
    text = (FOLDER / "kubernetes-job-template.json").read_text()
    plain = json.loads(text)
    used = json.dumps(plain["job_configuration"])
    for name, variable in plain["variables"]["properties"].items():
        assert f"{{{{ {name} }}}}" in used, name
        assert variable["description"].endswith("."), name
    assert used.count("{{") >= len(plain["variables"]["properties"])
    assert "SECRET_ACCESS_KEY" not in used


def test_a_deployment_is_what_its_entry_says() -> None:
    for entry, made in zip(ENTRY_POINTS, deployments(NIGHT), strict=True):
        assert (made.name, made.flow_name) == (entry.name, entry.name)
        assert made.entrypoint == entry.entrypoint
        assert made.concurrency_limit == entry.at_once
        assert made.concurrency_options.collision_strategy.value == "ENQUEUE"
        assert made.enforce_parameter_schema
        assert made.paused is False
        assert bool(made.schedules) is entry.nightly


def test_the_nightly_schedule_waits_for_a_batch() -> None:
    assert NIGHT.schedule().active
    assert not NO_NIGHT.schedule().active
    assert NIGHT.schedule().timezone == "Europe/Berlin"
    assert NIGHT.schedule().cron == "0 2 * * *"


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "Europe", "+02:00"])
def test_a_zone_that_is_none_is_refused(zone) -> None:
    with pytest.raises(InputError, match=r"expected a name of the IANA list.*THYRO_TIMEZONE"):
        NightlySchedule("0 2 * * *", zone, None).schedule()


@pytest.mark.parametrize("cron", ["", "2", "at night", "0 25 * * *", "0 2 * * * * *"])
def test_a_cron_that_is_none_is_refused(cron) -> None:
    with pytest.raises(InputError, match=r"expected five fields.*THYRO_SCREENING_CRON"):
        NightlySchedule(cron, "UTC", None).schedule()


async def _nights(year, month, day) -> list[datetime]:
    schedule = CronSchedule(cron=NIGHT.cron, timezone=NIGHT.timezone)
    start = datetime(year, month, day, 12, tzinfo=ZoneInfo(NIGHT.timezone))
    return await schedule.get_dates(4, start=start)


@pytest.mark.parametrize(("year", "month", "day"), [(2027, 3, 26), (2026, 10, 23)])
def test_every_night_has_one_run_when_the_clocks_change(year, month, day) -> None:
    found = asyncio.run(_nights(year, month, day))
    assert [date.day for date in found] == [day + 1, day + 2, day + 3, day + 4]
    assert {date.hour for date in found} <= {1, 2}


@pytest.mark.slow
def test_prefect_deploy_takes_the_file_and_a_worker_runs_it(tmp_path) -> None:
    from tests.support.imagesets import write_image_set

    source = write_image_set(tmp_path / "set", benign=4, malignant=3)
    with serving(tmp_path) as server:
        extra = {
            "PREFECT_API_URL": f"{server.url}/api",
            "THYRO_STORE": str(tmp_path / "store"),
            "PYTHONPATH": str(FOLDER.parent),
        }

        def prefect(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
                cwd=FOLDER.parent,
                env=environment(server.home, **extra),
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        template = str(FOLDER / "kubernetes-job-template.json")
        kubernetes = ["--type", "kubernetes", "--base-job-template", template]
        prefect("automation", "create", "--from-file", str(FOLDER / "automations.yaml"))
        # Each file with its own pool alone: who has no Kubernetes has no pool of that name.
        prefect("work-pool", "create", "thyro", "--type", "process")
        prefect("deploy", "--all", "--prefect-file", str(FOLDER / "prefect.yaml"))
        prefect("work-pool", "create", "thyro-kubernetes", *kubernetes)
        prefect("deploy", "--all", "--prefect-file", str(FOLDER / "prefect-kubernetes.yaml"))
        for name, entry in (declared("process") | declared("kubernetes")).items():
            flow = entry["entrypoint"].rsplit(".", 1)[1]
            found = server.ask(f"/deployments/name/{flow}/{name}")
            assert found["work_pool_name"] == entry["work_pool"]["name"]
            assert found["global_concurrency_limit"]["limit"] == entry["concurrency_limit"]["limit"]
            assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
            assert not found["pull_steps"]
            assert found["enforce_parameter_schema"]
            assert found["tags"] == entry["tags"]
            assert all(not schedule["active"] for schedule in found["schedules"])
        asked = server.ask("/deployments/name/ingest/ingest-process")["id"]
        body = {"parameters": {"source": str(source)}}
        run_id = server.ask(f"/deployments/{asked}/create_flow_run", body)["id"]
        prefect("worker", "start", "--pool", "thyro", "--run-once")
        run = server.over(run_id)
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
