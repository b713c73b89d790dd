"""The program that a study submits to a cluster: it joins the cluster and does the study's part.

    python -m thyro_core.cluster.driver ask REQUEST
    python -m thyro_core.cluster.driver train JOB_ID ORDER

Its arguments are keys and small settings. Credentials, and the folder for scratch files, come from
the environment of the cluster's own nodes. The outcomes of the splits go to the store; its answer,
or what stopped it, is the last line of its log.
"""

import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from thyro_core import __version__
from thyro_core.cluster.job_log import answer_line
from thyro_core.cluster.resources import ResourceRequest
from thyro_core.cluster.session import session
from thyro_core.errors import Failure, InputError, StoppedError, ThyroError
from thyro_core.host import keep_loopback_direct
from thyro_core.logs import set_up_logs
from thyro_core.settings import Settings
from thyro_core.store.keys import study_key
from thyro_core.store.store import open_store
from thyro_core.study.job import JobResources, RestartPolicy, SplitJob
from thyro_core.study.outcomes import write_outcome
from thyro_core.urls import redact

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOrder:
    """The splits to train: one job for each, alike but for its number.

    Attributes:
        job: The job of any split.
        splits: Their numbers, in the order in which they start.
        policy: How often a job starts again.
    """

    job: SplitJob
    splits: tuple[int, ...]
    policy: RestartPolicy

    @classmethod
    def of(cls, jobs: Sequence[SplitJob], policy: RestartPolicy) -> Self:
        """The order for jobs that differ in their split alone."""
        return cls(jobs[0], tuple(job.split for job in jobs), policy)

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The order that `text` wrote."""
        plain = json.loads(text)
        job = plain["job"] | {
            "skip": tuple(plain["job"]["skip"]),
            "resources": JobResources(**plain["job"]["resources"]),
        }
        return cls(SplitJob(**job), tuple(plain["splits"]), RestartPolicy(**plain["policy"]))

    def jobs(self) -> list[SplitJob]:
        """The jobs, one a split."""
        return [replace(self.job, split=split) for split in self.splits]


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit code is 0 if all of it was done."""
    keep_loopback_direct()
    set_up_logs(as_json=Settings().log_json)
    # The job server's stop; Ray's own handler would leave the jobs to themselves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    verb, *values = arguments
    try:
        if verb == "ask":
            return _ask(ResourceRequest.parse(values[0]))
        return _train(values[0], TrainingOrder.parse(values[1]))
    except KeyboardInterrupt:
        _LOG.warning("stopped")
        return StoppedError.exit_code
    except ThyroError as error:
        failure = Failure.of(error)
        _print_answer(failure=asdict(replace(failure, message=redact(failure.message))))
        return error.exit_code


def _print_answer(**values: object) -> None:
    sys.stdout.write(f"{answer_line(**values)}\n")
    sys.stdout.flush()


def _ask(request: ResourceRequest) -> int:
    _LOG.info("asking the cluster what a job would get; a busy one answers when a job ends")
    with session("auto") as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        allocation = SessionCluster(capacity, is_embedded=False).allocate(request)
    _print_answer(allocation=allocation.text(), version=__version__)
    return 0


def _train(job_id: str, order: TrainingOrder) -> int:
    study_id = order.job.study_id
    hint = _store_hint(order.job.store)
    store = open_store(order.job.store)
    if not store.exists(study_key(study_id)):
        msg = (
            f"{order.job.store}: expected study {study_id}, found none on the cluster's head{hint}"
        )
        raise InputError(msg)
    with session("auto") as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        _LOG.info("study %s: %d splits to train", study_id, len(order.splits))
        complete = True
        with SessionCluster(capacity, is_embedded=False).training(
            order.jobs(), order.policy
        ) as training:
            running = list(order.splits)
            while running:
                for split in tuple(running):
                    try:
                        outcome = training.outcome(split)
                    except ThyroError as error:
                        failure = Failure(type(error).__name__, f"{error}{hint}")
                        write_outcome(store, study_id, job_id, split, failure)
                        complete = False
                    else:
                        if outcome is None:
                            continue
                        complete = complete and not outcome.failed
                        write_outcome(store, study_id, job_id, split, outcome)
                    running.remove(split)
                    _LOG.info("split %d is over, %d are left", split, len(running))
    return 0 if complete else 1


def _store_hint(store: str) -> str:
    if not store.startswith("file:"):
        return ""
    return (
        f"; {store} is a folder, and every node of the cluster must see it: a store such as "
        "s3://bucket/folder is seen by all"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
