"""A cluster that is reached by its job server alone: the flow submits, watches and stops jobs."""

import hashlib
import re
import shlex
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from thyro_core import __version__
from thyro_core.cluster.driver import TrainingOrder
from thyro_core.cluster.job_log import JobLog, following
from thyro_core.cluster.job_server import JobServer, JobState
from thyro_core.cluster.resources import Allocation, ResourceRequest
from thyro_core.cluster.session import POLL_SECONDS
from thyro_core.errors import Failure, InputError, StoppedError, ThyroError
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy, poll_until
from thyro_core.store.store import open_store
from thyro_core.study.job import RestartPolicy, SplitJob, SplitOutcome
from thyro_core.study.outcomes import read_outcomes

Log = Callable[[str], None]

_JOB_POLL_SECONDS = 2.0
_STOP_SECONDS = 60.0
_SUBMIT_ATTEMPTS = 5
_REQUEST = "thyro_request"
_ALLOCATION = "thyro_allocation"


class JobsTraining:
    """A study's job on the cluster: one thread follows it, others wait for their split."""

    def __init__(self, server: JobServer, job_id: str, jobs: Sequence[SplitJob], log: Log) -> None:
        self._server = server
        self._job_id = job_id
        self._store = open_store(jobs[0].store)
        self._study_id = jobs[0].study_id
        self._running = {job.split for job in jobs}
        self._log = log
        self._outcomes: dict[int, SplitOutcome | Failure] = {}
        self._end: Failure | None = None
        self._change = threading.Condition()

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, after a short wait; None: it still runs.

        Raises:
            ThyroError: the split cannot be finished, or the job ended without it.
        """
        with self._change:
            self._change.wait_for(
                lambda: split in self._outcomes or self._end is not None, POLL_SECONDS
            )
            outcome = self._outcomes.get(split, self._end)
        if isinstance(outcome, Failure):
            raise outcome.to_error()
        return outcome

    def follow(self) -> None:
        """Pass on the job's log until it ends; why it ended is the error of each split left."""
        try:
            end = _follow(self._server, self._job_id, self._log, self._read_outcomes)
            self.end(end.failure())
        except ThyroError as error:
            self.end(Failure.of(error))

    def end(self, failure: Failure) -> None:
        """No more outcomes come; the first failure counts."""
        with self._change:
            self._end = self._end or failure
            self._change.notify_all()

    def _read_outcomes(self) -> None:
        outcomes = read_outcomes(self._store, self._study_id, self._job_id, self._running)
        with self._change:
            self._outcomes |= outcomes
            self._running -= outcomes.keys()
            self._change.notify_all()


class JobsCluster:
    """The cluster behind a job server."""

    def __init__(self, server: JobServer, log: Log) -> None:
        self._server = server
        self._log = log
        self._metadata: dict[str, str] = {}

    def allocate(self, request: ResourceRequest) -> Allocation:
        """What each job gets, as a small job on the cluster finds out.

        A cluster that trains for the same request has answered already: its jobs may hold all that
        the small job needs.

        Raises:
            InputError: the cluster has no Thyro, or another version of it.
            ThyroError: a job needs more than the cluster has, or the head is lost.
        """
        text = request.text()
        for job in self._server.jobs():
            if not job.is_over and job.metadata.get(_REQUEST) == text:
                allocation = Allocation.parse(job.metadata[_ALLOCATION])
                break
        else:
            allocation = self._run_allocation(text)
        self._metadata = {_REQUEST: text, _ALLOCATION: allocation.text()}
        return allocation

    def _run_allocation(self, request: str) -> Allocation:
        job_id = f"thyro-ask-{uuid.uuid4().hex[:12]}"
        self._server.submit(job_id, _entrypoint("ask", request), {})
        with _stopped_on_interrupt(self._server, job_id, self._log):
            end = _follow(self._server, job_id, self._log)
        answer = end.log.answer
        if "allocation" not in answer:
            raise end.failure().to_error()
        if answer["version"] != __version__:
            msg = (
                f"Ray at {self._server.address}: expected Thyro {__version__} on the cluster, as "
                f"here, found {answer['version']}; give its nodes the same version"
            )
            raise InputError(msg)
        return Allocation.parse(answer["allocation"])

    @contextmanager
    def training(self, jobs: Sequence[SplitJob], policy: RestartPolicy) -> Iterator[JobsTraining]:
        """Split jobs that train while the block runs; an interrupt stops them.

        A job of the same study that runs already is watched instead of a second one.
        """
        job_id = _submit_or_attach(
            self._server, TrainingOrder.of(jobs, policy), self._metadata, self._log
        )
        training = JobsTraining(self._server, job_id, jobs, self._log)
        try:
            with _stopped_on_interrupt(self._server, job_id, self._log):
                yield training
        finally:
            message = "the study was stopped; the same command goes on from its checkpoints"
            training.end(Failure(StoppedError.__name__, message))


def job_stem(study_id: str, store: str) -> str:
    """The name of a study's jobs, up to the number of the attempt.

    The store is in it: the same study in two stores is two jobs.
    """
    return f"thyro-{study_id}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


def _entrypoint(*arguments: str) -> str:
    return shlex.join(["python", "-m", "thyro_core.cluster.driver", *arguments])


def _submit_or_attach(
    server: JobServer, order: TrainingOrder, metadata: Mapping[str, str], log: Log
) -> str:
    """The id of the study's job: that of one that runs, else of a new attempt.

    An id is used once, so that a start that comes second by a moment is refused and tries again.
    """
    stem = job_stem(order.job.study_id, order.job.store)
    name = re.compile(rf"{re.escape(stem)}-(\d+)")

    def attempt() -> str:
        attempts = {
            int(match[1]): job for job in server.jobs() if (match := name.fullmatch(job.id))
        }
        for job in attempts.values():
            if not job.is_over:
                log(f"job {job.id} trains this study already at {server.address}: watching it")
                return job.id
        job_id = f"{stem}-{max(attempts, default=0) + 1}"
        if server.submit(job_id, _entrypoint("train", job_id, order.text()), metadata):
            log(f"submitted job {job_id} to {server.address}")
            return job_id
        raise _NameTakenError

    policy = RetryPolicy(
        attempts=_SUBMIT_ATTEMPTS,
        first_wait=0.0,
        retry_on=lambda error: isinstance(error, _NameTakenError),
    )
    try:
        return policy.call(attempt, f"Ray at {server.address}")
    except RetriesExhaustedError as error:
        msg = (
            f"Ray at {server.address}: others start jobs of study {order.job.study_id} and end "
            "them; try again"
        )
        raise ThyroError(msg) from error


class _NameTakenError(Exception):
    """Another start has submitted a job of this name."""


class _JobEnd:
    """How a job on the cluster ended."""

    def __init__(self, server: JobServer, state: JobState, log: JobLog) -> None:
        self._server = server
        self._state = state
        self.log = log

    def failure(self) -> Failure:
        """Why the job ended without a result."""
        if "failure" in self.log.answer:
            return Failure(**self.log.answer["failure"])
        return Failure(ThyroError.__name__, self._message())

    def _message(self) -> str:
        job = f"job {self._state.id} at {self._server.address}"
        if self._state.status == "STOPPED":
            return f"{job} was stopped; the same command goes on from its checkpoints"
        if self._state.status == "SUCCEEDED":
            return f"{job} ended before all was trained; the same command trains the rest"
        last = " | ".join(self.log.last_lines[-4:])
        last = last or " ".join(self._state.message.split())[-500:]
        cure = "what is finished is kept, and the same command goes on"
        if "thyro_core" in last and "No module named" in last:
            cure = "install Thyro on the cluster's nodes (infra/Dockerfile is an image that has it)"
        return f"{job} failed: {last}; {cure}"


def _follow(
    server: JobServer, job_id: str, log: Log, poll: Callable[[], None] = lambda: None
) -> _JobEnd:
    """Pass on a job's log until the job ends.

    Args:
        server: where the job runs.
        job_id: the job.
        log: called with each line for people.
        poll: called every few seconds, and once after the job has ended.
    """
    rest = f"the log is long; the rest of it: ray job logs {job_id} --address {server.address}"
    job_log = JobLog(log, rest)

    def ended_state() -> JobState | None:
        # In this order: an ended job has recorded all outcomes.
        state = server.state(job_id)
        poll()
        return state if state.is_over else None

    with following(job_log, lambda: server.tail(job_id)):
        state = poll_until(ended_state, _JOB_POLL_SECONDS)
    job_log.add(server.log(job_id), 0)
    job_log.end()
    return _JobEnd(server, state, job_log)


@contextmanager
def _stopped_on_interrupt(server: JobServer, job_id: str, log: Log) -> Iterator[None]:
    """Stop the job, and wait until it has, when the block is interrupted.

    An error of the flow is no interrupt: the job goes on, and the next start attaches to it.
    """
    try:
        yield
    except BaseException as end:
        if isinstance(end, Exception):
            raise
        log(f"stopping job {job_id} at {server.address}")
        try:
            _stop_job(server, job_id)
        except ThyroError as error:
            log(f"{error}; job {job_id} may still run")
        raise


def _stop_job(server: JobServer, job_id: str) -> None:
    server.stop(job_id)
    try:
        poll_until(lambda: server.state(job_id).is_over, 0.2, _STOP_SECONDS)
    except TimeoutError as error:
        msg = f"job {job_id} at {server.address} has not stopped within {_STOP_SECONDS:g} s"
        raise StoppedError(msg) from error
