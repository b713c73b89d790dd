"""A cluster that is reached by its job server alone: the flow submits, watches and stops jobs."""

import hashlib
import re
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from thyro_core import __version__
from thyro_core.cluster.driver import Order
from thyro_core.cluster.driver_events import LogReader, parse_outcome
from thyro_core.cluster.job_server import JobServer, JobState
from thyro_core.cluster.offers import Limits, Offer, Wish
from thyro_core.cluster.session import PATIENCE_SECONDS
from thyro_core.errors import InputError, StoppedError, ThyroError
from thyro_core.study.job import SplitJob, SplitOutcome

Say = Callable[[str], None]

_POLL_SECONDS = 2.0
_STOP_SECONDS = 60.0
_RACES = 5
_WISH = "thyro_wish"
_OFFER = "thyro_offer"


class JobsTraining:
    """A study's job on the cluster: one thread follows it, others ask for their split."""

    def __init__(self, server: JobServer, job_id: str, say: Say) -> None:
        self._server = server
        self._job_id = job_id
        self._say = say
        self._outcomes: dict[int, SplitOutcome | str] = {}
        self._over: str | None = None
        self._changed = threading.Condition()

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, waited for a moment; None: it is not over yet.

        Raises:
            ThyroError: the split cannot be finished, or the job ended without it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: split in self._outcomes or self._over is not None, PATIENCE_SECONDS
            )
            found = self._outcomes.get(split, self._over)
        if isinstance(found, str):
            raise ThyroError(found)
        return found

    def follow(self) -> None:
        """Say the job's log, line by line, until it ends; why it ended is each split's error."""
        try:
            state, said = _follow(self._server, self._job_id, self._take, self._say)
            self.end(_why(self._server, state, said))
        except ThyroError as error:
            self.end(str(error))

    def _take(self, event: dict[str, Any]) -> None:
        with self._changed:
            if event["event"] == "outcome":
                self._outcomes[event["split"]] = parse_outcome(event)
            elif event["event"] == "lost":
                self._outcomes[event["split"]] = str(event["error"])
            elif event["event"] == "failed":
                self._over = str(event["error"])
            self._changed.notify_all()

    def end(self, why: str) -> None:
        """Nothing more will come; the first reason counts."""
        with self._changed:
            self._over = self._over or why
            self._changed.notify_all()


class JobsCluster:
    """The cluster behind a job server."""

    def __init__(self, server: JobServer, say: Say) -> None:
        self._server = server
        self._say = say
        self._answered: dict[str, str] = {}

    def offer(self, wish: Wish) -> Offer:
        """What each job gets, asked by a small job.

        A cluster that trains for the same wish has answered already: its jobs may hold all that
        an answer needs.

        Raises:
            InputError: the cluster has no Thyro, or another version of it.
            ThyroError: a job needs more than the cluster has, or the head is lost.
        """
        offer = self._known_offer(wish) or self._ask(wish)
        self._answered = {_WISH: wish.text(), _OFFER: offer.text()}
        return offer

    def _known_offer(self, wish: Wish) -> Offer | None:
        for job in self._server.jobs():
            if not job.ended and job.metadata.get(_WISH) == wish.text():
                return Offer.parse(job.metadata[_OFFER])
        return None

    def _ask(self, wish: Wish) -> Offer:
        job_id = f"thyro-ask-{uuid.uuid4().hex[:12]}"
        self._server.submit(job_id, _entrypoint("ask", wish.text()), {})
        events: list[dict[str, Any]] = []
        with _stopped_on_interrupt(self._server, job_id, self._say):
            state, said = _follow(self._server, job_id, events.append, self._say)
        for event in events:
            if event["event"] == "offer":
                return _checked_offer(self._server, event)
            if event["event"] == "failed":
                raise (InputError if event["of_input"] else ThyroError)(event["error"])
        raise ThyroError(_why(self._server, state, said))

    @contextmanager
    def training(self, jobs: Sequence[SplitJob], limits: Limits) -> Iterator[JobsTraining]:
        """Split jobs that train while the block runs; interrupted, it stops them.

        A job of the same study that runs already is watched instead of a second one.
        """
        order = Order.of(jobs, limits)
        job_id = _submit_or_attach(self._server, order, self._answered, self._say)
        training = JobsTraining(self._server, job_id, self._say)
        try:
            with _stopped_on_interrupt(self._server, job_id, self._say):
                yield training
        finally:
            training.end("the study was stopped; the same command goes on from its checkpoints")


def job_stem(study_id: str, store: str) -> str:
    """The name of a study's jobs, up to the number of the attempt.

    The store is in it: the same study in two stores is two jobs.
    """
    return f"thyro-{study_id}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


def _entrypoint(what: str, text: str) -> str:
    return shlex.join(["python", "-m", "thyro_core.cluster.driver", what, text])


def _submit_or_attach(
    server: JobServer, order: Order, metadata: Mapping[str, str], say: Say
) -> str:
    """The id of the study's job: that of one that runs, else of a new attempt.

    An id is used once, so that a start that comes second by a moment is refused and looks again.
    """
    study = order.job.study_id
    stem = job_stem(study, order.job.store)
    name = re.compile(rf"{re.escape(stem)}-(\d+)")
    for _ in range(_RACES):
        attempts = {
            int(found[1]): job for job in server.jobs() if (found := name.fullmatch(job.id))
        }
        for job in attempts.values():
            if not job.ended:
                say(f"job {job.id} trains this study already at {server.address}: watching it")
                return job.id
        job_id = f"{stem}-{max(attempts, default=0) + 1}"
        if server.submit(job_id, _entrypoint("train", order.text()), metadata):
            say(f"submitted job {job_id} to {server.address}")
            return job_id
    msg = f"Ray at {server.address}: others start jobs of study {study} and end them; try again"
    raise ThyroError(msg)


def _follow(
    server: JobServer, job_id: str, take: Callable[[dict[str, Any]], None], say: Say
) -> tuple[JobState, list[str]]:
    """Watch a job until it ends; its last state and its last lines."""
    rest = f"the log is long; the rest of it: ray job logs {job_id} --address {server.address}"
    reader = LogReader(take, say, rest)
    while True:
        # In this order: the log of an ended job is whole.
        state = server.state(job_id)
        reader.read(server.log(job_id), ended=state.ended)
        if state.ended:
            return state, reader.last
        time.sleep(_POLL_SECONDS)


@contextmanager
def _stopped_on_interrupt(server: JobServer, job_id: str, say: Say) -> Iterator[None]:
    """Stop the job, and wait until it has, when the block is interrupted.

    An error of the flow is no interrupt: the job goes on, and the next start attaches to it.
    """
    try:
        yield
    except BaseException as end:
        if isinstance(end, Exception):
            raise
        say(f"stopping job {job_id} at {server.address}")
        try:
            _stop(server, job_id)
        except ThyroError as error:
            say(f"{error}; job {job_id} may still run")
        raise


def _stop(server: JobServer, job_id: str) -> None:
    server.stop(job_id)
    deadline = time.monotonic() + _STOP_SECONDS
    while not server.state(job_id).ended:
        if time.monotonic() > deadline:
            msg = f"job {job_id} at {server.address} has not stopped within {_STOP_SECONDS:g} s"
            raise StoppedError(msg)
        time.sleep(0.2)


def _checked_offer(server: JobServer, event: dict[str, Any]) -> Offer:
    if event["version"] != __version__:
        msg = (
            f"Ray at {server.address}: expected Thyro {__version__} on the cluster, as here, found "
            f"{event['version']}; give its nodes the same version"
        )
        raise InputError(msg)
    return Offer.parse(event["offer"])


def _why(server: JobServer, state: JobState, said: Sequence[str]) -> str:
    """Why a job ended without an answer, for the person who waits for it."""
    where = f"job {state.id} at {server.address}"
    if state.status == "STOPPED":
        return f"{where} was stopped; the same command goes on from its checkpoints"
    if state.status == "SUCCEEDED":
        return f"{where} ended before all was trained; the same command trains the rest"
    last = " | ".join(said[-4:]) or " ".join(state.message.split())[-500:]
    cure = "what is finished is kept, and the same command goes on"
    if "thyro_core" in last and "No module named" in last:
        cure = "install Thyro on the cluster's nodes (infra/Dockerfile is an image that has it)"
    return f"{where} failed: {last}; {cure}"
