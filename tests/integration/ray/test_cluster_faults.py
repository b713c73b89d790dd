"""A study on a real cluster of several nodes with only S3 in common, and what befalls clusters."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_study_cli import CONFIG
from tests.support.imagesets import write_image_set
from tests.support.places import REPOSITORY
from tests.support.raycluster import BINARIES, DEADLINE, RayCluster, ray_cluster, wait_until
from tests.support.s3server import BUCKET, forget_clients
from tests.unit.study.test_split import contents
from thyro_core.store.keys import placement_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import study_ids
from thyro_core.study.progress import read_job_progress
from thyro_core.tables.io import read_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SOURCE = f"s3://{BUCKET}/set"
# Long enough to be met in the middle.
EPOCHS = "30"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A network and S3 with an image set; no node yet."""
    with (
        ray_cluster(tmp_path_factory.mktemp("s3")) as cluster,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in cluster.s3.environment().items():
            patch.setenv(name, value)
        forget_clients()
        folder = write_image_set(tmp_path_factory.mktemp("source") / "set")
        store = open_store(f"s3://{BUCKET}")
        for file in folder.rglob("*"):
            if file.is_file():
                store.write(f"set/{file.relative_to(folder)}", file.read_bytes())
        yield cluster
    forget_clients()


@pytest.fixture
def cluster(site: RayCluster) -> Iterator[RayCluster]:
    """A head, a driver's node and two workers with one CPU each."""
    try:
        site.start()
        yield site
    finally:
        site.close()


def words(store: str) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in (CONFIG | {"epochs": EPOCHS}).items()]
    thyro = str(BINARIES / "thyro")
    return [thyro, "study", SOURCE, "--store", f"s3://{BUCKET}/{store}", "--json", *settings]


@pytest.fixture(scope="module")
def undisturbed(site: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the same study, run on one machine that nothing befell."""
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        words("undisturbed"), env=environment | site.s3.environment(), cwd=home,
        capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tables("undisturbed")


def opened(store: str) -> Store:
    return open_store(f"s3://{BUCKET}/{store}")


def tables(store: str) -> dict[str, bytes]:
    return contents(opened(store))


class Study:
    """The command on the driver's node."""

    def __init__(self, cluster: RayCluster, store: str, **settings: str) -> None:
        self.store = store
        given = [f"{name}={value}" for name, value in settings.items()]
        self._said = cluster.nodes["driver"].folder / f"{store}.{time.monotonic()}"
        with self._said.open("wb") as out:
            self._process = cluster.driver(
                ["env", *given, *words(store)], stdout=out, stderr=subprocess.STDOUT
            )

    def ends(self) -> tuple[int, str]:
        """Its exit code and what it said; a slow machine's study goes on as long as it says more.

        What it repeats is nothing more: a study in a loop hangs too.
        """
        known: set[str] = set()
        while True:
            try:
                self._process.wait(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                lines = set(self._said.read_text().splitlines())
                if lines <= known:
                    pytest.fail(f"the study hangs: {self._said.read_text()}")
                known = lines
            else:
                return self._process.returncode, self._said.read_text()

    def succeeds(self) -> dict[str, Any]:
        code, said = self.ends()
        assert code == 0, said
        printed: dict[str, Any] = json.loads(
            next(line for line in said.splitlines() if line.startswith("{"))
        )
        return printed

    def fails(self) -> str:
        code, said = self.ends()
        assert code == 1, said
        assert "Traceback" not in said
        return said

    def wait_for_checkpoint(self, splits: int = 1) -> None:
        def there() -> bool:
            assert self._process.poll() is None, self._said.read_text()
            return (
                sum("/checkpoints/" in key for key in opened(self.store).keys("studies")) >= splits
            )

        wait_until(there, f"checkpoints of {splits} splits")


def hosts(store: str) -> list[str]:
    return sorted(read_table(opened(store), "runs")["host"].to_pylist())


def test_each_node_trains_from_its_own_scratch_to_the_tables_of_one_machine(
    cluster, undisturbed
) -> None:
    Study(cluster, "quiet").succeeds()
    assert tables("quiet") == undisturbed
    if cluster.network.real:
        assert hosts("quiet") == ["worker-1", "worker-2"]
    for name in ("worker-1", "worker-2"):
        assert list(cluster.nodes[name].scratch.rglob("*.npy")), "the pack"


def workers_of(cluster: RayCluster, name: str) -> list[int]:
    """Processes of a node that train a split."""
    return cluster.nodes[name].pids("ray::RayTrainWorker")


def test_a_worker_killed_on_a_remote_node_changes_no_byte(cluster, undisturbed) -> None:
    study = Study(cluster, "worker-killed")
    study.wait_for_checkpoint(splits=2)
    (victim,) = workers_of(cluster, "worker-1")
    os.kill(victim, signal.SIGKILL)
    study.succeeds()
    assert tables("worker-killed") == undisturbed
    resumed = read_table(opened("worker-killed"), "runs")["resumed_epochs"].to_pylist()
    assert max(resumed) >= 1


def test_a_node_that_goes_silent_is_replaced_by_one_that_joins(cluster, undisturbed) -> None:
    study = Study(cluster, "node-replaced")
    study.wait_for_checkpoint(splits=2)
    cluster.lose("worker-2")
    cluster.lose("worker-1")
    cluster.add("worker-3")
    study.succeeds()
    assert tables("node-replaced") == undisturbed
    if cluster.network.real:
        assert "worker-3" in hosts("node-replaced")


def test_the_jobs_of_a_lost_node_go_on_where_there_is_room(cluster, undisturbed) -> None:
    study = Study(cluster, "node-lost")
    study.wait_for_checkpoint(splits=2)
    cluster.lose("worker-2")
    study.succeeds()
    assert tables("node-lost") == undisturbed


def test_a_cluster_that_stays_too_small_is_named_and_the_study_goes_on_later(
    cluster, undisturbed
) -> None:
    study = Study(cluster, "too-small", THYRO_NODE_PATIENCE="5")
    study.wait_for_checkpoint(splits=2)
    cluster.lose("worker-1")
    cluster.lose("worker-2")
    said = study.fails()
    assert "has waited 5 s for a node: a split job needs 1 CPU" in said
    assert "the cluster has no node that takes jobs" in said
    cluster.add("worker-3")
    Study(cluster, "too-small").succeeds()
    assert tables("too-small") == undisturbed


def test_a_job_larger_than_any_node_is_refused_by_what_it_lacks(cluster) -> None:
    said = Study(cluster, "refused", THYRO_CPUS_PER_JOB="2").fails()
    assert "a split job needs 2 CPU on one node, and the largest of 2 (" in said
    assert "has 1; lower THYRO_CPUS_PER_JOB" in said


def test_a_lost_head_ends_the_study_in_order_and_a_new_cluster_goes_on(
    cluster, undisturbed
) -> None:
    study = Study(cluster, "head-lost")
    study.wait_for_checkpoint(splits=2)
    cluster.stop("head")
    said = study.fails()
    assert "Ray's head at " in said
    assert "restart the cluster, and the same command goes on" in said
    cluster.close()
    cluster.start()
    Study(cluster, "head-lost").succeeds()
    assert tables("head-lost") == undisturbed
    resumed = read_table(opened("head-lost"), "runs")["resumed_epochs"].to_pylist()
    assert max(resumed) >= 1


@contextmanager
def killed_each_time(store: str, split: int) -> Iterator[list[str]]:
    """While the block runs, each attempt at a split is killed as soon as it has named its place.

    What goes wrong in the thread fails the block.

    Yields:
        The hosts that the attempts named.
    """
    over = threading.Event()
    hosts: list[str] = []

    def kill_attempts() -> None:
        opened_store, killed = opened(store), b""
        while not over.wait(0.05):
            keys = [placement_key(study_id, split) for study_id in study_ids(opened_store)]
            placement = b"".join(opened_store.read_all(keys).values())
            if placement != killed:
                place = json.loads(placement)
                os.kill(place["pid"], signal.SIGKILL)
                hosts.append(place["host"])
                killed = placement

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_attempts)
        try:
            yield hosts
        finally:
            over.set()
            killer.result()


def test_a_job_that_dies_each_time_is_named_with_its_host_and_the_others_finish(
    cluster, undisturbed
) -> None:
    study = Study(cluster, "culprit", THYRO_JOB_RETRIES="1")
    with killed_each_time("culprit", 1) as deaths:
        said = study.fails()
    assert "split 1 is given up: its process died 2 times" in said
    assert "the last time the process crashed, or was killed" in said
    assert len(deaths) == 2
    assert all(f" x {host}" in said for host in deaths), "each by its host"
    if cluster.network.real:
        assert set(deaths) <= {"worker-1", "worker-2"}
    (finished,) = read_table(opened("culprit"), "runs").to_pylist()
    assert (finished["split"], finished["status"]) == (0, "finished")
    Study(cluster, "culprit").succeeds()
    assert tables("culprit") == undisturbed


@pytest.fixture
def seven_minutes_ahead() -> Iterator[dict[str, str]]:
    """What makes a process's wall clock wrong, and nothing else."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler `cc`: a wrong clock needs one")
    source = REPOSITORY / "tests" / "support" / "clock_ahead.c"
    # A node has its own /tmp.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        library = Path(folder, "clock_ahead.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        yield {"LD_PRELOAD": str(library), "CLOCK_AHEAD": "420"}


def test_a_node_whose_clock_is_minutes_off_changes_no_byte(
    site, undisturbed, seven_minutes_ahead
) -> None:
    try:
        site.start(workers=1)
        site.add("worker-2", environment=seven_minutes_ahead)
        study = Study(site, "skewed")
        study.wait_for_checkpoint(splits=2)
        at = [
            p
            for s in range(2)
            if (p := read_job_progress(opened("skewed"), study_ids(opened("skewed"))[0], s))
        ]
        ahead = [
            p
            for p in at
            if datetime.fromisoformat(p.updated) > datetime.now(UTC) + timedelta(minutes=5)
        ]
        assert len(ahead) == 1, "the clock is off"
        study.succeeds()
        assert tables("skewed") == undisturbed
    finally:
        site.close()
