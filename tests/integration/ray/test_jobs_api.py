"""A study on a cluster that is reached by its dashboard alone: attach, stop, go on, errors."""

import asyncio
import json
import os
import shlex
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.e2e.test_study_cli import command, has_checkpoint, processes_of, run, start, wait_until
from tests.support.imagesets import write_image_set
from tests.support.jobs_head import ENDED, FakeHead, fake_head, real_head
from tests.unit.study.test_split import contents
from thyro_core import __version__
from thyro_core.cluster import driver, job_log, job_server, jobs_cluster
from thyro_core.cluster.driver import TrainingOrder
from thyro_core.cluster.job_log import JobLog, answer_line, following
from thyro_core.cluster.job_server import connect_job_server
from thyro_core.cluster.jobs_cluster import JobsCluster, job_stem
from thyro_core.cluster.resources import Allocation, ResourceRequest
from thyro_core.cluster.session import session
from thyro_core.errors import Failure, InputError, ThyroError
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob, SplitOutcome
from thyro_core.study.outcomes import write_outcome
from thyro_core.tables.io import read_table

REQUEST = ResourceRequest("auto", 1, None, 1, 2, 10**9, 10**9, 60.0)
POLICY = RestartPolicy(3, 60.0)
ALLOCATION = Allocation(JobResources(1, 0.5), "bf16")
ALLOCATED = answer_line(allocation=ALLOCATION.text(), version=__version__)
STORE = "memory://jobs-api/store"
STUDY = "s0123456789abcdef"
JOBS = [SplitJob(STORE, STUDY, split, "/scratch", JobResources(1, 0.5)) for split in (1, 0)]
STEM = job_stem(STUDY, STORE)
NO_STORE = Failure("InputError", "store x: none there")
DONE = {split: SplitOutcome(split, ("resnet18",), {}) for split in (0, 1)}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHead]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jobs_cluster, "_JOB_POLL_SECONDS", 0.01)
    monkeypatch.setattr(job_server, "SERVER_LOST_SECONDS", 2.0)
    with fake_head() as found:
        yield found
    store = open_store(STORE)
    for key in list(store.keys("studies")):
        store.delete(key)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cluster(head: FakeHead, said: list[str]) -> JobsCluster:
    return JobsCluster(connect_job_server(head.address), said.append)


def ends(
    head: FakeHead,
    status: str,
    *lines: str,
    outcomes: Mapping[int, SplitOutcome | Failure] = DONE,
    message: str = "",
) -> None:
    """Every job ends at the first request for its state, with these lines and outcomes."""

    def look(job_id: str) -> None:
        for split, outcome in outcomes.items():
            write_outcome(open_store(STORE), STUDY, job_id, split, outcome)
        head.logs[job_id] = "".join(f"{line}\n" for line in lines)
        head.jobs[job_id] |= {"status": status, "message": message}

    head.on_look = look


def outcomes(cluster: JobsCluster) -> dict[int, object]:
    """What the flow does, without Prefect: follow, then each split's outcome or error."""
    found: dict[int, object] = {}
    with cluster.training(JOBS, POLICY) as training:
        training.follow()
        for split in (0, 1):
            try:
                found[split] = training.outcome(split)
            except ThyroError as error:
                found[split] = str(error)
    return found


def test_what_a_job_gets_is_asked_by_a_small_job(head, cluster, said) -> None:
    ends(head, "SUCCEEDED", "asking", ALLOCATED)
    assert cluster.allocate(REQUEST) == ALLOCATION
    (job,) = head.jobs.values()
    program = shlex.split(job["entrypoint"])
    assert program[:4] == ["python", "-m", "thyro_core.cluster.driver", "ask"]
    assert ResourceRequest.parse(program[4]) == REQUEST
    assert said == ["asking"], "the answer is for the flow"


def test_a_cluster_that_trains_for_the_same_request_is_not_asked_again(head, cluster) -> None:
    """Its jobs may hold all CPUs for hours: a question would wait for them."""
    known = {"thyro_request": REQUEST.text(), "thyro_allocation": ALLOCATION.text()}
    head.add(f"{STEM}-1", "RUNNING", **known)
    assert cluster.allocate(REQUEST) == ALLOCATION
    assert len(head.jobs) == 1
    head.jobs[f"{STEM}-1"]["status"] = "SUCCEEDED"
    ends(head, "SUCCEEDED", ALLOCATED)
    cluster.allocate(REQUEST)
    assert len(head.jobs) == 2, "nodes may have changed since then"


def test_another_version_on_the_cluster_is_refused(head, cluster) -> None:
    ends(head, "SUCCEEDED", answer_line(allocation=ALLOCATION.text(), version="0.0.1"))
    with pytest.raises(InputError, match=rf"expected Thyro {__version__}.*found 0\.0\.1"):
        cluster.allocate(REQUEST)


def test_the_job_is_named_after_the_study_and_gets_keys_alone(head, cluster, said) -> None:
    ends(head, "SUCCEEDED")
    assert outcomes(cluster) == DONE
    (job_id,) = head.jobs
    assert job_id == f"{STEM}-1"
    program = shlex.split(head.jobs[job_id]["entrypoint"])
    assert program[3:5] == ["train", job_id]
    assert TrainingOrder.parse(program[5]) == TrainingOrder.of(JOBS, POLICY)
    assert TrainingOrder.parse(program[5]).jobs() == JOBS, "in the order given"
    assert said == [f"submitted job {job_id} to {head.address}"]


def test_the_same_study_in_another_store_is_another_job() -> None:
    assert job_stem("s1", "s3://a/b") != job_stem("s1", "s3://a/c")
    assert job_stem("s1", "s3://a/b") == job_stem("s1", "s3://a/b")


def test_a_running_job_is_watched_and_no_second_one_started(head, cluster, said) -> None:
    for number, status in ((1, "FAILED"), (2, "STOPPED"), (10, "RUNNING")):
        head.add(f"{STEM}-{number}", status)
    earlier = Failure("ThyroError", "an earlier job was given up")
    write_outcome(open_store(STORE), STUDY, f"{STEM}-1", 0, earlier)
    ends(head, "SUCCEEDED")
    assert outcomes(cluster) == DONE
    assert len(head.jobs) == 3
    assert said == [f"job {STEM}-10 trains this study already at {head.address}: watching it"]
    assert not [request for request in head.requests if request == "POST /api/jobs/"]


@pytest.mark.parametrize("status", sorted(ENDED))
def test_a_job_that_ended_is_followed_by_a_new_attempt(head, cluster, status) -> None:
    for number in (9, 10):
        head.add(f"{STEM}-{number}", status)
    head.add(f"{STEM}0-99", "RUNNING")
    head.add(f"{job_stem('s9', STORE)}-99", "RUNNING")
    ends(head, "SUCCEEDED")
    outcomes(cluster)
    assert f"{STEM}-11" in head.jobs


def test_of_two_starts_at_once_the_second_attaches(head, cluster, said) -> None:
    """Between its look and its submission another start is faster."""

    def faster(job_id: str) -> None:
        head.add(job_id, "RUNNING")
        head.on_submit = str

    head.on_submit = faster
    ends(head, "SUCCEEDED")
    assert outcomes(cluster) == DONE
    assert list(head.jobs) == [f"{STEM}-1"]
    assert "watching it" in said[0]


def test_each_split_hears_of_its_own_end(head, cluster) -> None:
    failed = SplitOutcome(0, (), {"resnet18": Failure("RuntimeError", "no room")})
    lost = Failure("ThyroError", "split 1: its process died 4 times")
    ends(head, "FAILED", outcomes={0: failed, 1: lost})
    assert outcomes(cluster) == {0: failed, 1: lost.message}


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        ("STOPPED", "stopped", "was stopped; the same command goes on"),
        ("SUCCEEDED", "", "ended before all was trained"),
        ("FAILED", "Killed", "failed: Killed; what is finished is kept"),
        ("FAILED", "python: No module named thyro_core", "install Thyro on the cluster's nodes"),
        ("FAILED", "ModuleNotFoundError: No module named 'thyro_core'", "install Thyro"),
        ("FAILED", answer_line(failure=asdict(NO_STORE)), "store x: none there"),
    ],
)
def test_a_job_that_ends_without_an_outcome_says_why(head, cluster, status, line, expected) -> None:
    ends(head, status, line, outcomes={})
    found = outcomes(cluster)
    assert expected in str(found[0])
    assert found[0] == found[1]
    with pytest.raises(ThyroError, match="store x" if "store x" in line else STEM[:5]) as error:
        cluster.allocate(REQUEST)
    assert isinstance(error.value, InputError) == ("store x" in line)


def test_a_job_without_a_log_says_what_ray_says(head, cluster) -> None:
    ends(head, "FAILED", outcomes={}, message="The job supervisor could not be scheduled")
    assert "supervisor could not be scheduled" in str(outcomes(cluster)[0])


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores interrupts, and so would this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_the_job_and_waits_for_it(head, cluster, said) -> None:
    def look(job_id: str) -> None:
        head.jobs[job_id]["status"] = "RUNNING"
        head.on_look = str
        raise_in_main.set()

    raise_in_main = threading.Event()
    head.on_look = look

    def interrupt() -> None:
        raise_in_main.wait(60)
        # An interrupt that meets a destructor is dropped by Python: then a person sends it again.
        while any(job["status"] == "RUNNING" for job in head.jobs.values()):
            signal.raise_signal(signal.SIGINT)
            time.sleep(5)

    waiting: list[str] = []

    def watch(training) -> None:
        try:
            while training.outcome(0) is None:
                pass
        except ThyroError as error:
            waiting.append(str(error))

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), cluster.training(JOBS, POLICY) as training:  # noqa: PT012
        watcher = threading.Thread(target=watch, args=(training,))
        watcher.start()
        training.follow()
    thread.join()
    watcher.join()
    assert head.jobs[f"{STEM}-1"]["status"] == "STOPPED"
    assert said[-1].startswith(f"stopping job {STEM}-1")
    assert waiting == ["the study was stopped; the same command goes on from its checkpoints"]


def test_a_failure_of_the_flow_leaves_the_job_alone(head, cluster) -> None:
    """The next start attaches: only who means to stop stops."""
    with pytest.raises(OSError, match="store"), cluster.training(JOBS, POLICY):
        raise OSError("the store is away")
    assert head.jobs[f"{STEM}-1"]["status"] == "PENDING"


def test_a_head_that_is_away_for_a_while_is_waited_for(head, cluster) -> None:
    ends(head, "SUCCEEDED")
    head.answers = [(503, "busy"), (500, "no agent")]
    assert outcomes(cluster) == DONE


def test_a_lost_head_is_named_with_what_to_do(head, cluster) -> None:
    def look(job_id: str) -> None:
        head.answers = [(502, "Bad Gateway")] * 1000

    head.on_look = look
    found = str(outcomes(cluster)[0])
    assert f"Ray's head at {head.address} has not answered for 2 s" in found
    assert "502" in found
    assert "the same command goes on" in found


def test_a_cluster_that_was_started_anew_has_forgotten_the_job(head, cluster) -> None:
    head.on_look = lambda _: head.answers.append((404, "Job does not exist"))
    assert "does not know the job any more" in str(outcomes(cluster)[0])


def test_a_log_is_bounded_and_bare_of_secrets(said, monkeypatch) -> None:
    monkeypatch.setattr(JobLog, "MAX_LINES", 3)
    monkeypatch.setattr(JobLog, "MAX_WIDTH", 30)
    log = JobLog(said.append, "the rest is elsewhere")
    text = "see s3://user:secret@host/a?sig=1\n" + "x" * 100 + "\nhalf"
    log.add(text, 0)
    assert said == ["see s3://host/a", "x" * 30]
    more = " a line\n\nfour\nfive\n" + answer_line(error="no") + "\nthyro-answer {"
    log.add(more, len(text))
    log.add(text + more, 0)
    log.end()
    log.end()
    assert said[2:] == ["half a line", "the rest is elsewhere"]
    assert log.answer == {"error": "no"}
    assert log.last_lines[-3:] == ["four", "five", "thyro-answer {"]


def test_a_log_is_passed_on_as_it_grows_and_no_line_twice(said, monkeypatch) -> None:
    """The connection breaks, and the next one starts at the log's beginning."""
    monkeypatch.setattr(job_log, "_RECONNECT_SECONDS", 0.0)
    connections: list[int] = []

    async def tail():
        connections.append(len(connections))
        yield "one\ntw"
        if len(connections) == 1:
            raise RuntimeError("closed unexpectedly")
        yield "o\nthree\n"
        await asyncio.Event().wait()

    log = JobLog(said.append, "")
    with following(log, tail):
        wait_until(lambda: len(said) == 3, "the lines")
    assert said == ["one", "two", "three"]
    log.add("one\ntwo\nthree\nfour\n", 0)
    assert said[3:] == ["four"]


def test_nobody_at_the_address(head) -> None:
    with pytest.raises(InputError, match=r"expected the dashboard.*nobody answers.*ray start"):
        connect_job_server("http://127.0.0.1:9")


@pytest.mark.parametrize(
    "answer", [(404, "no"), (200, "<html>"), (200, '{"version": 1}'), (500, "")]
)
def test_something_else_at_the_address(head, answer) -> None:
    head.answers = [answer]
    with pytest.raises(InputError, match=r"expected Ray's dashboard.*something else.*8265"):
        connect_job_server(head.address)


def test_a_wrong_token_or_none(head) -> None:
    head.token = "right"
    with pytest.raises(InputError, match=r"RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN"):
        connect_job_server(head.address)


def test_another_address_in_rays_own_variable_is_not_obeyed(head, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(InputError, match=r"RAY_ADDRESS is set.*elsewhere.*unset it"):
        connect_job_server(head.address)
    monkeypatch.setenv("RAY_ADDRESS", f"{head.address}/")
    connect_job_server(head.address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head:10001", r"ray://.*use http://head:8265"),
        ("http://head:8265", "only a study goes through a cluster's dashboard.*host:port"),
    ],
)
def test_an_address_that_cannot_be_joined(address, expected) -> None:
    with pytest.raises(InputError, match=expected), session(address):
        pass


def test_the_driver_says_if_it_cannot_see_the_store(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(driver, "set_up_logs", lambda **_: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        order = TrainingOrder.of([SplitJob(f"file://{tmp_path}", "s1", 0, "/scratch")], POLICY)
        assert driver.main(["train", "thyro-1", order.text()]) == InputError.exit_code
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = capsys.readouterr().out.splitlines()
    assert "found none on the cluster's head" in line
    assert "every node of the cluster must see it" in line
    assert '"kind": "InputError"' in line


# A real head, the command itself, and everything that can be killed.


@pytest.fixture(scope="module")
def cluster_head():
    with real_head() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_set(tmp_path_factory.mktemp("source") / "set")


# Enough that a quick machine has not trained them all before a checkpoint is seen.
EPOCHS = "40"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, home: Path, source: Path):
    """The tables of a study on this machine alone."""
    folder = tmp_path_factory.mktemp("store") / "local"
    done = run(command(source, folder, epochs=EPOCHS), home)
    assert done.returncode == 0, done.stderr
    return contents(open_store(str(folder)))


def jobs_of(head, store) -> dict[str, dict]:
    """The attempts at a store's study."""
    (study,) = [p.name for p in Path(store.root, "studies").glob("s*")]
    stem = job_stem(study, store.url)
    return {name: job for name, job in head.jobs().items() if name.startswith(stem)}


def logged(home: Path, what: str) -> int:
    with closing(sqlite3.connect(home / ".prefect" / "prefect.db")) as database:
        query = "select count(*) from log where message like ?"
        return int(database.execute(query, [f"%{what}%"]).fetchone()[0])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_flow_that_is_killed_attaches_to_its_job_again(
    cluster_head, undisturbed, home, source, tmp_path
) -> None:
    folder = tmp_path / "attached"
    store = open_store(str(folder))
    arguments = [*command(source, folder, epochs=EPOCHS), "--ray", cluster_head.address]
    token = cluster_head.environment()
    first = start(arguments, home, **token)
    stopped: list[int] = []
    try:
        wait_until(lambda: has_checkpoint(store), "a checkpoint")
        # Held, so that the job cannot end before the second start has found it.
        stopped = processes_of(folder)
        assert stopped, "the job's splits are over already"
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        # With Prefect's server, which it started.
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        ((name, before),) = jobs_of(cluster_head, store).items()
        assert before["status"] == "RUNNING"
        asked = sum(job.startswith("thyro-ask") for job in cluster_head.jobs())
        second = start(arguments, home, **token)
        said = f"job {name} trains this study already"
        wait_until(lambda: logged(home, said) == 1, "the second start attaches")
    finally:
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
    _, errors = second.communicate(timeout=600)
    assert second.returncode == 0, errors
    ((again, after),) = jobs_of(cluster_head, store).items()
    assert (again, after["status"]) == (name, "SUCCEEDED")
    assert after["driver_info"] == before["driver_info"]
    assert asked == sum(job.startswith("thyro-ask") for job in cluster_head.jobs())
    assert contents(store) == undisturbed
    assert logged(home, "split 1 is over") >= 1, "the job's log is in Prefect"
    with closing(sqlite3.connect(home / ".prefect" / "prefect.db")) as database:
        tasks = {name for (name,) in database.execute("select name from task_run")}
        bars = database.execute("select data from artifact where type = 'progress'").fetchall()
    assert {"split-0", "split-1"} <= tasks
    assert [float(data) for (data,) in bars].count(100.0) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_stop_stops_the_job_and_the_same_command_goes_on(
    cluster_head, undisturbed, home, source, tmp_path
) -> None:
    folder = tmp_path / "stopped"
    store = open_store(str(folder))
    arguments = [*command(source, folder, epochs=EPOCHS), "--ray", cluster_head.address]
    token = cluster_head.environment()
    process = start(arguments, home, **token)
    wait_until(lambda: has_checkpoint(store), "a checkpoint")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    ((name, job),) = jobs_of(cluster_head, store).items()
    assert job["status"] == "STOPPED", "before the command ends"
    wait_until(lambda: not processes_of(folder), "the split tasks end with it")
    done = run(arguments, home, **token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["study_id"] in name
    statuses = {
        key.rsplit("-", 1)[1]: j["status"] for key, j in jobs_of(cluster_head, store).items()
    }
    assert statuses == {"1": "STOPPED", "2": "SUCCEEDED"}
    assert contents(store) == undisturbed
    assert max(row["resumed_epochs"] for row in read_table(store, "runs").to_pylist()) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_is_wrong_with_the_cluster_is_one_sentence(
    cluster_head, home, source, tmp_path
) -> None:
    arguments = [*command(source, tmp_path / "s"), "--ray", cluster_head.address]
    for wrong in (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
        {"RAY_AUTH_MODE": "disabled"},
    ):
        done = run(arguments, home, **wrong)
        assert done.returncode == 2, done.stderr
        assert "RAY_AUTH_TOKEN" in done.stderr
        assert "Traceback" not in done.stderr
    more = run(arguments, home, THYRO_CPUS_PER_JOB="3", **cluster_head.environment())
    assert more.returncode == 1, more.stderr
    assert "needs 3 CPU" in more.stderr
