"""A cluster that this process has joined: ask it, and train a study's splits on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from thyro_core.cluster import trainer
from thyro_core.cluster.attempts import cancelled_on_error
from thyro_core.cluster.offers import Limits, Offer, Wish
from thyro_core.cluster.resources import Capacity, JobResources, job_resources, with_memory
from thyro_core.cluster.session import closing
from thyro_core.study.job import SplitJob, SplitOutcome
from thyro_core.training.memory import jobs_that_fit


class SessionTraining:
    """The submitted split jobs of a study, each watched by its own caller."""

    def __init__(self, jobs: Sequence[SplitJob], limits: Limits) -> None:
        # At once and in order, not by the watchers: those start in no order.
        self._runs = {
            job.split: trainer.submit(
                job, JobResources(job.threads, job.gpus, job.workers, job.memory), limits
            )
            for job in jobs
        }

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, waited for a moment; None: it is not over yet.

        Raises:
            ThyroError: the job cannot be finished, or the session is closing.
        """
        run = self._runs[split]
        with cancelled_on_error(run):
            return run.outcome()

    def follow(self) -> None:
        """Nothing: what jobs of a session say is in Ray's own logs."""

    def cancel(self) -> None:
        """Stop all jobs; their checkpoints stay."""
        closing.set()
        for run in self._runs.values():
            run.cancel()


class SessionCluster:
    """The cluster of the open session."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity

    def offer(self, wish: Wish) -> Offer:
        """What each job gets.

        Raises:
            ThyroError: a job needs more than the cluster has.
        """
        fit = 1
        if self._capacity.gpus and wish.gpus_per_job is None:
            fit = jobs_that_fit(trainer.smallest_gpu(), wish.gpu_bytes)
        resources = job_resources(
            self._capacity,
            wish.cpus_per_job,
            wish.gpus_per_job,
            wish.jobs,
            fit,
            wish.workers_per_job,
        )
        resources = with_memory(resources, self._capacity, wish.cpu_bytes)
        precision = trainer.job_precision(wish.precision, resources, wish.node_patience)
        return Offer(resources, precision)

    @contextmanager
    def training(self, jobs: Sequence[SplitJob], limits: Limits) -> Iterator[SessionTraining]:
        """Split jobs that train while the block runs; interrupted, it stops them."""
        started = SessionTraining(jobs, limits)
        try:
            yield started
        except BaseException:
            started.cancel()
            raise
