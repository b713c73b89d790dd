"""A split job on the cluster, watched, and started again when its process or its node is lost.

Ray could start a job again by itself, but counts a lost node like a job that dies of its own fault,
waits for neither, and cannot name the host.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import ray
from ray import exceptions

from thyro_core.cluster import session
from thyro_core.cluster.failures import (
    NODE_LOST,
    LossKind,
    WorkerLostError,
    failure_message,
    may_be_for_memory,
    process_end,
)
from thyro_core.cluster.resources import Node, shortage, with_more_memory
from thyro_core.cluster.session import POLL_SECONDS, check_open
from thyro_core.cluster.worker_groups import GroupQueue, remove_placement_group_of
from thyro_core.errors import ThyroError
from thyro_core.store.retry import RetryPolicy
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob, SplitOutcome
from thyro_core.study.placement import read_placements
from thyro_core.study.progress import read_job_progress

_LOG = logging.getLogger(__name__)

NODE_LOSSES = 10
"""Nodes that a job may lose: they come and go by no fault of a job, but one that takes each of its
nodes down with it must end."""

RESTARTS = RetryPolicy(first_wait=2.0, longest_wait=60.0)
"""Waits before a job starts again."""

_NODE_CHECK_SECONDS = 5.0


class NodeDeadline:
    """How long a job waits while no node can run it; a new or larger one may join."""

    def __init__(self, resources: JobResources, patience: float) -> None:
        self._resources = resources
        self._patience = patience
        self._short_since: float | None = None

    def check(self, waiter: str, nodes: Sequence[Node]) -> None:
        """Check the nodes that are up now.

        Args:
            waiter: what waits, for the message.
            nodes: of the cluster.

        Raises:
            ThyroError: there has been none that could run the job for longer than the patience.
        """
        lacking = shortage(nodes, self._resources)
        if lacking is None:
            self._short_since = None
            return
        now = time.monotonic()
        self._short_since = now if self._short_since is None else self._short_since
        if now - self._short_since >= self._patience:
            msg = (
                f"{waiter} has waited {self._patience:g} s for a node: {lacking}; add one and "
                "start the same command again (THYRO_NODE_PATIENCE is how long it waits)"
            )
            raise ThyroError(msg)


class SplitRun:
    """A submitted job through all its attempts.

    Args:
        job: what to run.
        start: submits an attempt to Ray.
        policy: how often it starts again.
        queue: when it may start, if its attempts are worker groups; None: at once.
    """

    def __init__(
        self,
        job: SplitJob,
        start: Callable[[SplitJob], "ray.ObjectRef[SplitOutcome]"],
        policy: RestartPolicy,
        queue: GroupQueue | None = None,
    ) -> None:
        self._job = job
        self._queue = queue
        self._store = open_store(job.store)
        self._start = start
        self._max_failures: dict[LossKind, int] = {"process": policy.restarts, "node": NODE_LOSSES}
        self._node_patience = policy.node_patience
        self._deadline = NodeDeadline(job.resources, policy.node_patience)
        self._first_resources = job.resources
        self._memory_losses = 0
        self._failures: dict[LossKind, list[str]] = {"process": [], "node": []}
        """The place of each."""
        self._restart_at = 0.0
        self._nodes_checked = time.monotonic()
        self._missing_node: str | None = None
        self._ref: ray.ObjectRef[SplitOutcome] | None = None
        self._start_in_turn()

    def outcome(self) -> SplitOutcome | None:
        """The outcome, after a short wait; None: the job still runs.

        Raises:
            ThyroError: the job cannot be finished: its process died or its node was lost too
                often, no node can run it, it met an error outside any architecture, the head of
                the cluster is lost, or the session is closing.
        """
        check_open(f"split {self._job.split}")
        if time.monotonic() - self._nodes_checked >= _NODE_CHECK_SECONDS:
            self._check_nodes()
        if self._ref is None:
            wait = self._restart_at - time.monotonic()
            if wait > 0:
                time.sleep(min(wait, POLL_SECONDS))
            elif not (session.head_answers() and self._start_in_turn()):
                time.sleep(POLL_SECONDS)
            return None
        ready, _ = ray.wait([self._ref], timeout=POLL_SECONDS)
        if not ready:
            return None
        # An attempt that has ended is never cancelled: a task's result can be had a moment before
        # Ray has closed its books on it, and a cancel in that moment aborts this process.
        ref, self._ref = self._ref, None
        try:
            return ray.get(ref)
        except exceptions.RayTaskError as error:
            if not isinstance(error.cause, WorkerLostError):
                msg = f"split {self._job.split} failed: {error.cause}"
                raise ThyroError(msg) from error
            self._fail(error.cause.kind, error.cause.cause, error.cause.rank)
        except exceptions.NodeDiedError:
            self._fail("node", NODE_LOST)
        except exceptions.RayError as error:
            self._fail("process", process_end(error))
        return None

    def cancel(self) -> None:
        """Stop the job; its checkpoint stays. Without a head there is nothing left to stop."""
        if self._ref is not None and session.head_answers():
            ray.cancel(self._ref, force=True)

    def _start_in_turn(self) -> bool:
        """Start an attempt, if it is the job's turn."""
        if self._queue is not None and not self._queue.may_start(self._job.split):
            return False
        self._job = replace(self._job, attempt=uuid.uuid4().hex)
        self._ref = self._start(self._job)
        return True

    def _check_nodes(self) -> None:
        """Compare with the nodes that are up: a job whose node went silent hangs for minutes."""
        self._nodes_checked = time.monotonic()
        nodes = session.nodes()
        self._deadline.check(f"split {self._job.split}", nodes)
        up = {node.id for node in nodes}
        places = read_placements(self._store, self._job)
        rank, missing = next(
            ((rank, place.node) for rank, place in places.items() if place.node not in up),
            (0, None),
        )
        # Twice in a row: the list of nodes may be older than a node that has just joined.
        if self._ref is not None and missing and missing == self._missing_node:
            self._fail("node", NODE_LOST, rank)
        self._missing_node = missing

    def _fail(self, kind: LossKind, cause: str, rank: int = 0) -> None:
        """Note where and how an attempt ended; plan the next one, unless it was the last."""
        # What a lost head leaves needs no tidying, and the tidying would hang.
        if self._queue is not None and session.head_answers():
            # The task that started the group may run on, on another node than the worker.
            self.cancel()
            remove_placement_group_of(self._job)
        place = self._place(rank)
        self._failures[kind].append(place)
        if len(self._failures[kind]) > self._max_failures[kind]:
            message = failure_message(
                self._job.split, self._failures["process"], self._failures["node"], cause
            )
            raise ThyroError(message)
        if kind == "process" and may_be_for_memory(cause):
            self._make_room()
        wait = RESTARTS.wait_seconds(sum(map(len, self._failures.values())))
        _LOG.warning(
            "split %d, at %s: %s; started again in %.1f s", self._job.split, place, cause, wait
        )
        self._ref = None
        self._restart_at = time.monotonic() + wait

    def _make_room(self) -> None:
        """Have the next attempt hold more memory, so that fewer jobs run beside it."""
        self._memory_losses += 1
        resources = with_more_memory(self._first_resources, session.nodes(), self._memory_losses)
        if resources.memory > self._job.resources.memory:
            self._job = replace(self._job, resources=resources)
            self._deadline = NodeDeadline(resources, self._node_patience)
            _LOG.warning(
                "split %d: it holds %.1f GB from now on, so that fewer jobs run beside it",
                self._job.split,
                resources.memory / 1e9,
            )

    def _place(self, rank: int) -> str:
        """Where a worker of the attempt was, and what it was training."""
        place = read_placements(self._store, self._job).get(rank)
        if place is None:
            return "an unknown host, before it began"
        progress = read_job_progress(self._store, self._job.study_id, self._job.split)
        if progress is None or not progress.architecture:
            return place.host
        return f"{place.host} ({progress.architecture}, epoch {progress.epoch})"
