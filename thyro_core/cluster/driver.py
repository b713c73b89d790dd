"""The program that a study submits to a cluster: it joins the cluster and does the study's part.

    python -m thyro_core.cluster.driver ask WISH
    python -m thyro_core.cluster.driver train ORDER

Its arguments are keys and small settings. Credentials, and the folder for scratch files, come from
the environment of the cluster's own nodes.
"""

import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from thyro_core import __version__
from thyro_core.cluster.driver_events import (
    failed_event,
    lost_event,
    offer_event,
    outcome_event,
)
from thyro_core.cluster.offers import Limits, Wish
from thyro_core.cluster.session import session
from thyro_core.errors import InputError, StoppedError, ThyroError
from thyro_core.logs import set_up_logs
from thyro_core.settings import Settings
from thyro_core.store.keys import study_key
from thyro_core.store.store import open_store
from thyro_core.study.job import SplitJob

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """The splits to train: one job for each, alike but for its number.

    Attributes:
        job: The job of any split.
        splits: Their numbers, in the order in which they start.
        limits: How much a job may meet before it is given up.
    """

    job: SplitJob
    splits: tuple[int, ...]
    limits: Limits

    @classmethod
    def of(cls, jobs: Sequence[SplitJob], limits: Limits) -> Self:
        """The order for jobs that differ in their split alone."""
        return cls(jobs[0], tuple(job.split for job in jobs), limits)

    def jobs(self) -> list[SplitJob]:
        """The jobs, one a split."""
        return [replace(self.job, split=split) for split in self.splits]

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The order that `text` wrote."""
        plain = json.loads(text)
        job = plain["job"] | {"skip": tuple(plain["job"]["skip"])}
        return cls(SplitJob(**job), tuple(plain["splits"]), Limits(**plain["limits"]))


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit code is 0 if all of it was done."""
    set_up_logs(as_json=Settings().log_json)
    # The job server's stop; Ray's own answer to it would leave the jobs to themselves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    what, text = arguments
    try:
        if what == "ask":
            return _ask(Wish.parse(text))
        return _train(Order.parse(text))
    except KeyboardInterrupt:
        _LOG.warning("stopped")
        return StoppedError.exit_code
    except ThyroError as error:
        _tell(failed_event(str(error), of_input=isinstance(error, InputError)))
        return error.exit_code


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _ask(wish: Wish) -> int:
    _LOG.info("asking the cluster what a job would get; a busy one answers when a job ends")
    with session("auto") as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        offer = SessionCluster(capacity).offer(wish)
    _tell(offer_event(offer, __version__))
    return 0


def _train(order: Order) -> int:
    study = order.job.study_id
    hint = _hint(order.job.store)
    if not open_store(order.job.store).exists(study_key(study)):
        msg = f"{order.job.store}: expected study {study}, found none on the cluster's head{hint}"
        raise InputError(msg)
    with session("auto") as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        _LOG.info("study %s: %d splits to train", study, len(order.splits))
        complete = True
        with SessionCluster(capacity).training(order.jobs(), order.limits) as training:
            left = list(order.splits)
            while left:
                for split in tuple(left):
                    try:
                        outcome = training.outcome(split)
                    except ThyroError as error:
                        _tell(lost_event(split, f"{error}{hint}"))
                        complete = False
                    else:
                        if outcome is None:
                            continue
                        complete = complete and not outcome.failed
                        _tell(outcome_event(outcome))
                    left.remove(split)
                    _LOG.info("split %d is over, %d are left", split, len(left))
    return 0 if complete else 1


def _hint(store: str) -> str:
    if not store.startswith("file:"):
        return ""
    return (
        f"; {store} is a folder, and every node of the cluster must see it: a store such as "
        "s3://bucket/folder is seen by all"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
