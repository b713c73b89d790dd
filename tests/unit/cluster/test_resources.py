"""Resources of jobs, and what a user hears when there are too few or no cluster."""

import itertools
import os
import socket
import threading
from dataclasses import replace

import pytest
import ray
from ray import exceptions

from thyro_core.cluster import attempts
from thyro_core.cluster import session as sessions
from thyro_core.cluster.attempts import NODE_LOSSES, NodeDeadline, SplitRun
from thyro_core.cluster.failures import LossKind, WorkerLostError
from thyro_core.cluster.resources import (
    Capacity,
    Node,
    ResourceRequest,
    capacity_of,
    gpu_share,
    job_resources,
    room_for_jobs,
    shortage,
)
from thyro_core.cluster.session import check_open, closing, session
from thyro_core.cluster.watch import ClusterWatch, is_reachable
from thyro_core.cluster.worker_groups import GroupQueue
from thyro_core.errors import InputError, ThyroError
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob, SplitOutcome
from thyro_core.study.placement import Placement, read_placements, write_placement

HEAD = Node("head", 0)


def cluster(*sizes: tuple[float, float]) -> Capacity:
    """A head that takes no jobs, and nodes with these CPUs and GPUs."""
    return capacity_of([HEAD, *(Node(f"n{i}", *size) for i, size in enumerate(sizes))])


def request(cpus: int, gpus: float | None, memory: int = 0) -> ResourceRequest:
    return ResourceRequest("auto", cpus, gpus, 1, 10, 10**9, memory, 60.0)


def test_a_cluster_has_what_its_nodes_have() -> None:
    found = cluster((2, 0), (4, 1))
    assert (found.cpus, found.gpus) == (6, 1)
    assert [node.name for node in found.nodes] == ["n0", "n1"]


@pytest.mark.parametrize(
    ("gpus", "fit", "expected"),
    [
        (0, 50, 0.0),
        (1, 50, 0.1),
        (4, 50, 0.3333),
        (8, 50, 0.5),
        (16, 50, 1.0),
        (1, 4, 0.25),
        (1, 1, 1.0),
        (4, 2, 0.5),
    ],
)
def test_gpus_are_shared_as_far_as_their_memory_goes(gpus, fit, expected) -> None:
    share = gpu_share(gpus, 10, fit)
    assert share == expected
    if gpus:
        # Ray counts in ten-thousandths: so many fractions must not come to more than one.
        at_once = 10_000 // round(share * 10_000)
        assert at_once <= fit
        assert at_once * gpus >= min(10, fit * gpus)


def test_workers_of_one_job_never_share_a_gpu() -> None:
    assert gpu_share(4, 10, jobs_per_gpu=50, workers=2) == 1.0


def test_what_was_asked_for_is_given() -> None:
    large = cluster((8, 2))
    assert job_resources(large, request(4, 0.5)) == JobResources(4, 0.5)
    assert job_resources(large, request(4, 0.0)) == JobResources(4, 0.0)
    assert job_resources(large, request(1, None), 50) == JobResources(1, 0.2)


@pytest.mark.parametrize(
    ("offers", "needed", "said"),
    [
        ([(2, 0), (2, 0)], (4, 0.0), r"needs 4 CPU on one node, and the largest of 2 \(n0\) has 2"),
        ([(2, 0), (3, 0)], (4, 0.0), r"needs 4 CPU on one node, and the largest of 2 \(n1\) has 3"),
        ([(2, 0)], (1, 1.0), r"needs 1 GPU on one node, and the largest of 1 \(n0\) has 0"),
        (
            [(1, 1), (8, 0)],
            (4, 1.0),
            "no node has it all: n0 has 1 CPU and 1 GPU, n1 has 8 CPU and 0 GPU",
        ),
        ([], (1, 0.0), "needs 1 CPU, and the cluster has no node that takes jobs"),
    ],
)
def test_too_small_a_cluster_is_refused_by_the_resource_that_no_node_has(
    offers, needed, said
) -> None:
    found = cluster(*offers)
    assert shortage((HEAD, *found.nodes), JobResources(*needed)) is not None
    with pytest.raises(ThyroError, match=f"{said}.*; lower THYRO_CPUS_PER_JOB"):
        job_resources(found, request(*needed))


def test_jobs_without_a_gpu_set_memory_aside_and_a_small_node_runs_one() -> None:
    nodes = [HEAD, Node("n0", 8, memory=16e9), Node("n1", 8, memory=6e9), Node("n2", 1, memory=9e9)]
    found = capacity_of(nodes)
    job = request(2, 0.0, memory=5 * 10**9)
    assert job_resources(found, job) == JobResources(2, 0.0, memory=5 * 10**9)
    # An estimate forbids nothing; a node with too few cores does not count.
    large = request(2, 0.0, memory=7 * 10**9)
    assert job_resources(capacity_of(nodes[2:]), large).memory == 6 * 10**9
    two = job_resources(capacity_of(nodes[2:]), replace(large, workers=2))
    assert two.memory == 3 * 10**9
    assert shortage(nodes[2:], two) is None
    with_gpus = capacity_of([*nodes, Node("n3", 8, 1)])
    assert job_resources(with_gpus, replace(job, gpus=0.5)).memory == 0
    assert job_resources(capacity_of([Node("n", 8)]), job).memory == 0


def test_memory_that_no_node_has_any_more_is_named() -> None:
    job = JobResources(1, 0.0, memory=5 * 10**9)
    assert shortage([Node("n0", 1, memory=5e9)], job) is None
    lost = shortage([Node("n0", 4, memory=3e9), Node("n1", 2, memory=4.25e9)], job)
    assert lost == (
        "a split job needs 5 GB of memory on one node, and the largest of 2 (n1) has 4.25"
    )
    apart = [Node("n0", 1, memory=8e9), Node("n1", 8, memory=2e9)]
    said = (
        "needs 4 CPU and 5 GB of memory on one node, and no node has it all: n0 has 1 CPU and 8 GB"
    )
    assert said in str(shortage(apart, JobResources(4, 0.0, memory=5 * 10**9)))
    two = JobResources(1, 0.0, workers=2, memory=5 * 10**9)
    assert shortage([Node("n0", 8, memory=11e9)], two) is None
    assert "room for 1" in str(shortage([Node("n0", 8, memory=9e9)], two))


def test_one_node_that_is_large_enough_is_enough() -> None:
    assert shortage(cluster((1, 0), (4, 1)).nodes, JobResources(4, 1.0)) is None


def test_too_few_nodes_are_borne_for_a_while_and_forgotten_when_a_node_joins(clock) -> None:
    deadline = NodeDeadline(JobResources(2, 0.0), patience=60)
    small, large = [Node("s", 1)], [Node("l", 2)]
    deadline.check("split 3", small)
    clock.now += 59
    deadline.check("split 3", small)
    deadline.check("split 3", large)
    clock.now += 59
    deadline.check("split 3", small)
    clock.now += 60
    with pytest.raises(ThyroError, match=r"split 3 has waited 60 s for a node: .* \(s\) has 1"):
        deadline.check("split 3", small)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(attempts, "time", made)
    return made


class FakeRay:
    """Attempts that end as a script says; None: goes on."""

    def __init__(self, monkeypatch, clock: Clock, *ends: object) -> None:
        self.ends = list(ends)
        self.clock = clock
        self.started: list[tuple[float, str]] = []
        self.nodes = [Node("n", 1, id="id-n")]
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(sessions, "nodes", lambda: self.nodes)

    def start(self, job: SplitJob) -> SplitJob:
        self.started.append((self.clock.now, job.attempt))
        write_placement(job, "id-n")
        return job

    def wait(self, refs, timeout):
        self.clock.now += timeout
        return ([], refs) if self.ends and self.ends[0] is None else (refs, [])

    def get(self, _ref):
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


DIED, LOST = exceptions.WorkerCrashedError(), exceptions.NodeDiedError("gone")
DONE = SplitOutcome(3, (), {})


def watched(fake: FakeRay, tmp_path, retries: int = 3) -> SplitRun:
    job = SplitJob(str(tmp_path), "s1", 3, "/tmp")
    return SplitRun(job, fake.start, RestartPolicy(retries, 60.0))


def ended(run: SplitRun) -> SplitOutcome:
    for _ in range(2000):
        found = run.outcome()
        if found is not None:
            return found
    raise AssertionError


def test_a_job_that_dies_starts_again_after_longer_and_longer_waits(
    monkeypatch, clock, tmp_path
) -> None:
    fake = FakeRay(monkeypatch, clock, DIED, DIED, DIED, DONE)
    assert ended(watched(fake, tmp_path)) is DONE
    times = [at for at, _ in fake.started]
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert len(waits) == 3
    # A random part of up to half of each is left out, so that jobs do not start at once; one
    # second passes until the next check.
    for wait, longest in zip(waits, (2, 4, 8), strict=True):
        assert longest / 2 <= wait <= longest + 2
    assert 30 <= attempts.RESTARTS.wait_seconds(10) <= 60
    assert len({attempt for _, attempt in fake.started}) == 4


def test_a_job_that_dies_each_time_is_given_up_by_name_host_and_cause(
    monkeypatch, clock, tmp_path
) -> None:
    fake = FakeRay(monkeypatch, clock, LOST, DIED, LOST, DIED, LOST, DIED)
    with pytest.raises(ThyroError) as caught:
        ended(watched(fake, tmp_path, retries=2))
    said = str(caught.value)
    assert "split 3 is given up: its process died 3 times and it lost 3 nodes: 6 x " in said
    assert "the last time the process crashed, or was killed" in said
    assert f"6 x {socket.gethostname()};" in said


def test_lost_nodes_are_no_fault_of_a_job_but_have_an_end(monkeypatch, clock, tmp_path) -> None:
    fake = FakeRay(monkeypatch, clock, *[LOST] * NODE_LOSSES, DONE)
    assert ended(watched(fake, tmp_path, retries=0)) is DONE
    fake = FakeRay(monkeypatch, clock, *[LOST] * (NODE_LOSSES + 1))
    with pytest.raises(ThyroError, match=f"it lost {NODE_LOSSES + 1} nodes.*its node was lost"):
        ended(watched(fake, tmp_path))


def test_a_job_whose_node_went_silent_is_started_elsewhere(monkeypatch, clock, tmp_path) -> None:
    fake = FakeRay(monkeypatch, clock, None)
    run = watched(fake, tmp_path)
    for _ in range(20):
        assert run.outcome() is None
    assert len(fake.started) == 1, "its node is there"
    fake.nodes = [Node("m", 1, id="id-m")]
    for _ in range(20):
        assert run.outcome() is None
        if len(fake.started) == 2:
            break
    assert len(fake.started) == 2


def test_a_job_on_a_node_that_has_just_joined_is_left_alone(monkeypatch, clock, tmp_path) -> None:
    fake = FakeRay(monkeypatch, clock, None)
    run = watched(fake, tmp_path)
    # The list of nodes is seconds old: the first one is older than the job's node.
    lists = [[Node("m", 1, id="id-m")]]
    monkeypatch.setattr(sessions, "nodes", lambda: lists.pop() if lists else fake.nodes)
    for _ in range(30):
        assert run.outcome() is None
    assert not lists
    assert len(fake.started) == 1


def test_a_job_that_has_not_started_was_on_no_lost_node(monkeypatch, clock, tmp_path) -> None:
    fake = FakeRay(monkeypatch, clock, None)
    run = SplitRun(
        SplitJob(str(tmp_path), "s1", 3, "/tmp"),
        lambda job: fake.started.append((0, job.attempt)) or job,
        RestartPolicy(3, 60.0),
    )
    # What an earlier start of the study left there, on a node that is gone.
    write_placement(SplitJob(str(tmp_path), "s1", 3, "/tmp", attempt="earlier"), "id-gone")
    for _ in range(20):
        assert run.outcome() is None
    assert len(fake.started) == 1


def test_a_lost_worker_counts_as_what_was_lost_and_is_named_by_its_own_place(
    monkeypatch, clock, tmp_path
) -> None:
    def gone(kind: LossKind) -> exceptions.RayTaskError:
        return exceptions.RayTaskError("f", "traceback", WorkerLostError(1, kind, "it is gone"))

    fake = FakeRay(monkeypatch, clock, *[gone("node")] * 3, gone("process"))
    monkeypatch.setattr(attempts, "remove_placement_group_of", lambda _: None)
    monkeypatch.setattr(ray, "cancel", lambda *_, **__: None)

    def start(job: SplitJob) -> SplitJob:
        write_placement(job, "id-m", 1)
        return fake.start(job)

    job = SplitJob(str(tmp_path), "s1", 3, "/tmp", JobResources(workers=2))
    queue = GroupQueue([3], job.resources)
    fake.nodes = [Node("n", 1, id="id-n"), Node("m", 1, id="id-m")]
    with pytest.raises(ThyroError) as caught:
        ended(SplitRun(job, start, RestartPolicy(0, 60.0), queue))
    said = str(caught.value)
    assert "its process died 1 times and it lost 3 nodes: 4 x " in said
    assert "the last time it is gone" in said


def test_groups_start_in_order_as_many_as_there_is_room_for_and_one_that_waits(
    monkeypatch,
) -> None:
    nodes = [Node("n", 2)]
    monkeypatch.setattr(sessions, "nodes", lambda: nodes)
    queue = GroupQueue(range(6), JobResources(1))
    assert [split for split in (5, 0, 2, 1, 2, 3, 4) if queue.may_start(split)] == [0, 1, 2]
    assert queue.may_start(0), "a job that starts again has its turn"
    nodes.append(Node("m", 1))
    assert [split for split in (4, 3, 4) if queue.may_start(split)] == [3]
    queue.leave(1)
    queue.leave(5)
    assert [split for split in (5, 4) if queue.may_start(split)] == [4]
    queue.leave(0)
    assert not queue.may_start(5), "it has left"


def test_without_any_node_one_group_waits(monkeypatch) -> None:
    monkeypatch.setattr(sessions, "nodes", tuple)
    queue = GroupQueue(range(2), JobResources(1, workers=2))
    assert [split for split in (0, 1) if queue.may_start(split)] == [0]


@pytest.mark.parametrize(
    ("nodes", "resources", "room"),
    [
        ([Node("n", 9)], JobResources(1, 0.0, 2), 4),
        ([Node("n", 64, 6)], JobResources(1, 1.0, 2), 3),
        ([Node("n", 64, memory=20e9)], JobResources(1, 0.0, 2, 3 * 10**9), 3),
        ([Node("n", 1), Node("m", 1), Node("head", 0)], JobResources(2), 0),
    ],
)
def test_nodes_have_room_for_so_many_jobs(nodes, resources, room) -> None:
    assert room_for_jobs(nodes, resources) == room


def test_an_error_of_the_job_itself_is_not_tried_again(monkeypatch, clock, tmp_path) -> None:
    error = exceptions.RayTaskError("f", "traceback", InputError("no such study"))
    fake = FakeRay(monkeypatch, clock, error, DONE)
    with pytest.raises(ThyroError, match="split 3 failed: no such study"):
        ended(watched(fake, tmp_path))
    assert len(fake.started) == 1


def test_where_an_attempt_runs_is_known_by_its_name(tmp_path) -> None:
    job = SplitJob(str(tmp_path), "s1", 3, "/tmp", attempt="one")
    store = open_store(job.store)
    assert read_placements(store, job) == {}
    write_placement(job, "id")
    place = Placement("one", "id", socket.gethostname(), os.getpid())
    assert read_placements(store, job) == {0: place}
    assert read_placements(store, replace(job, attempt="two")) == {}
    write_placement(job, "other", 1)
    pair = replace(job, resources=JobResources(workers=2))
    assert read_placements(store, pair) == {0: place, 1: replace(place, node="other")}
    write_placement(replace(job, attempt="two"), "id")
    assert read_placements(store, pair) == {1: replace(place, node="other")}


def test_a_head_that_stops_answering_is_lost_after_a_while(monkeypatch) -> None:
    monkeypatch.setattr("thyro_core.cluster.watch._INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr("thyro_core.cluster.watch.LOST_SECONDS", 0.05)
    up = threading.Event()
    up.set()
    monkeypatch.setattr("thyro_core.cluster.watch.is_reachable", lambda _: up.is_set())
    seen = [(Node("a", 1, 0, "a"),), None, ()]
    with ClusterWatch("h:1", lambda: seen.pop(0) if seen else None) as head:
        monkeypatch.setattr(sessions, "_watch", head)
        assert [node.id for node in sessions.nodes()] in (["a"], [])
        wait_for(lambda: not sessions.nodes())
        check_open("split 3")
        up.clear()
        wait_for(lambda: head.lost)
        with pytest.raises(ThyroError, match="Ray's head at h:1 has not answered"):
            check_open("split 3")
        up.set()
        wait_for(lambda: not head.lost)
    assert not is_reachable("127.0.0.1:9")


def wait_for(met) -> None:
    for _ in range(6000):
        if met():
            return
        threading.Event().wait(0.01)
    raise AssertionError


def test_a_closing_session_stops_who_watches_a_job(monkeypatch, clock, tmp_path) -> None:
    run = watched(FakeRay(monkeypatch, clock, None), tmp_path)
    closing.set()
    try:
        with pytest.raises(ThyroError, match="split 3 was stopped"):
            run.outcome()
    finally:
        closing.clear()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "nonsense"])
def test_no_cluster_at_the_address_is_said_with_the_cure(address) -> None:
    with pytest.raises(InputError, match=r"expected a cluster.*ray start --head"), session(address):
        pass
