"""A split job on the cluster, watched, and started again when its process or its node is lost.

Ray could start a job again by itself, but counts a lost node like a job that dies of its own fault,
waits for neither, and cannot say where it happened.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import ray
from ray import exceptions

from thyro_core.cluster import session
from thyro_core.cluster.offers import Limits
from thyro_core.cluster.resources import JobResources, Node, missing
from thyro_core.cluster.session import PATIENCE_SECONDS, check_open
from thyro_core.cluster.worker_groups import free_room
from thyro_core.errors import ThyroError
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import SplitJob, SplitOutcome
from thyro_core.study.placement import whereabouts
from thyro_core.study.progress import read_job_progress

_LOG = logging.getLogger(__name__)

NODE_LOSSES = 10
"""Nodes that a job may lose: they come and go by no fault of a job, but one that takes each of its
nodes down with it must end."""

_BACKOFF_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 60.0
_LOOK_SECONDS = 5.0
_LOST = "its node was lost"
_NEWLINE = "\n"


def backoff(failures: int) -> float:
    """Wait before a job that died so many times (at least once) is started again [s]."""
    return min(_BACKOFF_SECONDS * 2.0 ** (failures - 1), _LONGEST_BACKOFF_SECONDS)


class Shortage:
    """How long there has been no node that could run a job; a new or larger one may join."""

    def __init__(self, resources: JobResources, patience: float) -> None:
        self._resources = resources
        self._patience = patience
        self._since: float | None = None

    def check(self, who: str, nodes: Sequence[Node]) -> None:
        """Judge the nodes that are there now.

        Raises:
            ThyroError: there has been none that could run the job for longer than the patience.
        """
        lacking = missing(nodes, self._resources)
        if lacking is None:
            self._since = None
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._patience:
            msg = (
                f"{who} has waited {self._patience:g} s for a node: {lacking}; add one and start "
                "the same command again (THYRO_NODE_PATIENCE is how long it waits)"
            )
            raise ThyroError(msg)


class SplitRun:
    """A submitted job through all its attempts."""

    def __init__(
        self,
        job: SplitJob,
        start: Callable[[SplitJob], "ray.ObjectRef[SplitOutcome]"],
        resources: JobResources,
        limits: Limits,
    ) -> None:
        self._job = job
        self._store = open_store(job.store)
        self._start = start
        self._limits = limits
        self._shortage = Shortage(resources, limits.node_patience)
        self._deaths: list[str] = []
        self._losses: list[str] = []
        self._not_before = 0.0
        self._looked = time.monotonic()
        self._absent: str | None = None
        self._ref: ray.ObjectRef[SplitOutcome] | None = None
        self._start_attempt()

    def outcome(self) -> SplitOutcome | None:
        """The outcome, waited for a moment; None: the job is not over yet.

        Raises:
            ThyroError: the job cannot be finished: its process died or its node was lost too
                often, no node can run it, it met an error outside any architecture, the head of
                the cluster is lost, or the session is closing.
        """
        check_open(f"split {self._job.split}")
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._look()
        if self._ref is None:
            self._start_again()
            return None
        ready, _ = ray.wait([self._ref], timeout=PATIENCE_SECONDS)
        if not ready:
            return None
        try:
            return ray.get(self._ref)
        except exceptions.RayTaskError as error:
            msg = f"split {self._job.split} failed: {error.cause}"
            raise ThyroError(msg) from error
        except exceptions.NodeDiedError as error:
            self._ended(self._losses, NODE_LOSSES, _cause(error))
        except exceptions.RayError as error:
            self._ended(self._deaths, self._limits.retries, _cause(error))
        return None

    def cancel(self) -> None:
        """Stop the job; its checkpoint stays."""
        if self._ref is not None:
            ray.cancel(self._ref, force=True)

    def _start_attempt(self) -> None:
        self._job = replace(self._job, attempt=uuid.uuid4().hex)
        self._ref = self._start(self._job)

    def _start_again(self) -> None:
        left = self._not_before - time.monotonic()
        if left > 0:
            time.sleep(min(left, PATIENCE_SECONDS))
        else:
            self._start_attempt()

    def _look(self) -> None:
        """Look at the cluster's nodes: a job of one that went silent hangs for many minutes."""
        self._looked = time.monotonic()
        nodes = session.nodes()
        self._shortage.check(f"split {self._job.split}", nodes)
        place = whereabouts(self._store, self._job)
        absent = place.node if place and place.node not in {node.id for node in nodes} else None
        # Twice in a row: what is known of the nodes may be older than a node that just joined.
        if self._ref is not None and absent and absent == self._absent:
            self._ended(self._losses, NODE_LOSSES, _LOST)
        self._absent = absent

    def _ended(self, ends: list[str], most: int, why: str) -> None:
        """Note where and how an attempt ended; plan the next one, unless it was the last."""
        if self._job.workers > 1:
            free_room(self._job)
        ends.append(_place(self._store, self._job))
        if len(ends) > most:
            raise ThyroError(given_up(self._job.split, self._deaths, self._losses, why))
        wait = backoff(len(self._deaths) + len(self._losses))
        _LOG.warning(
            "split %d, at %s: %s; started again in %g s", self._job.split, ends[-1], why, wait
        )
        self._ref = None
        self._not_before = time.monotonic() + wait


@contextmanager
def cancelled_on_error(run: SplitRun) -> Iterator[None]:
    """Stop the job when the block that watches it is interrupted."""
    try:
        yield
    except BaseException:
        run.cancel()
        raise


def _place(store: Store, job: SplitJob) -> str:
    """Where an attempt was, and what it was at."""
    place = whereabouts(store, job)
    if place is None:
        return "an unknown host, before it began"
    at = read_job_progress(store, job.study_id, job.split)
    doing = f" ({at.architecture}, epoch {at.epoch})" if at is not None and at.architecture else ""
    return f"{place.host}{doing}"


def _cause(error: exceptions.RayError) -> str:
    if isinstance(error, exceptions.NodeDiedError):
        return _LOST
    if isinstance(error, exceptions.OutOfMemoryError):
        return "the node ran out of memory, and Ray killed the process"
    if isinstance(error, exceptions.WorkerCrashedError):
        return "the process crashed, or was killed"
    return f"{type(error).__name__}: {str(error).partition(_NEWLINE)[0]}"


def given_up(split: int, deaths: Sequence[str], losses: Sequence[str], why: str) -> str:
    """What is said of a job that is not started again: which one, what happened, where and why.

    Args:
        split: of the job.
        deaths: where its process died, one place for each time.
        losses: where it was when its node was lost.
        why: how the last attempt ended.
    """
    ends = [f"its process died {len(deaths)} times"] if deaths else []
    ends += [f"it lost {len(losses)} nodes"] if losses else []
    places = ", ".join(f"{n} x {place}" for place, n in Counter((*deaths, *losses)).items())
    return (
        f"split {split} is given up: {' and '.join(ends)}: {places}; the last time {why}; look at "
        "that host, or give each job more room (fewer jobs at once: a higher THYRO_CPUS_PER_JOB), "
        "and start the same command again"
    )
