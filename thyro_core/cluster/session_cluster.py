"""A cluster that this process has joined: ask it, and train a study's splits on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from thyro_core.cluster import split_jobs
from thyro_core.cluster.offers import Offer, Wish
from thyro_core.cluster.session import Capacity, JobResources, closing, job_resources
from thyro_core.job_spec import SplitJob, SplitOutcome


class SessionTraining:
    """The submitted split jobs of a study, each watched by its own caller."""

    def __init__(self, jobs: Sequence[SplitJob], retries: int) -> None:
        self._retries = retries
        self._jobs = {job.split: job for job in jobs}
        self._refs: dict[int, ray.ObjectRef[SplitOutcome]] = {
            job.split: split_jobs.submit(job, JobResources(job.threads, job.gpus), retries)
            for job in jobs
        }

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, waited for a moment; None: it is not over yet.

        Raises:
            ThyroError: the job cannot be finished, or the session is closing.
        """
        ref = self._refs[split]
        with split_jobs.cancelled_on_error(ref):
            return split_jobs.outcome(self._jobs[split], ref, self._retries)

    def follow(self) -> None:
        """Nothing: what jobs of a session say is in Ray's own logs."""

    def cancel(self) -> None:
        """Stop all jobs; their checkpoints stay."""
        closing.set()
        for ref in self._refs.values():
            split_jobs.cancel(ref)


class SessionCluster:
    """The cluster of the open session."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity

    def offer(self, wish: Wish) -> Offer:
        """What each job gets.

        Raises:
            ThyroError: a job needs more than the cluster has.
        """
        resources = job_resources(self._capacity, wish.cpus_per_job, wish.gpus_per_job, wish.jobs)
        return Offer(resources, split_jobs.job_precision(wish.precision, resources))

    @contextmanager
    def training(self, jobs: Sequence[SplitJob], retries: int) -> Iterator[SessionTraining]:
        """Split jobs that train while the block runs; interrupted, it stops them."""
        started = SessionTraining(jobs, retries)
        try:
            yield started
        except BaseException:
            started.cancel()
            raise
