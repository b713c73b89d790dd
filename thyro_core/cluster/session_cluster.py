"""A cluster that this process has joined."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from thyro_core.cluster import trainer
from thyro_core.cluster.resources import Allocation, Capacity, ResourceRequest, job_resources
from thyro_core.cluster.session import closing
from thyro_core.cluster.worker_groups import GroupQueue
from thyro_core.study.job import RestartPolicy, SplitJob, SplitOutcome
from thyro_core.training.memory import jobs_that_fit


class SessionTraining:
    """The submitted split jobs of a study, each watched by a thread of its own."""

    def __init__(
        self, jobs: Sequence[SplitJob], policy: RestartPolicy, *, is_embedded: bool
    ) -> None:
        self._queue: GroupQueue | None = None
        if jobs and not (is_embedded and jobs[0].resources.workers == 1):
            self._queue = GroupQueue([job.split for job in jobs], jobs[0].resources)
        # At once and in order, not by the watchers: those start in no order.
        self._runs = {job.split: trainer.submit(job, policy, self._queue) for job in jobs}

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, after a short wait; None: it still runs.

        Raises:
            ThyroError: the job cannot be finished, or the session is closing.
        """
        run = self._runs[split]
        has_ended = True
        try:
            outcome = run.outcome()
            has_ended = outcome is not None
        except BaseException:
            run.cancel()
            raise
        finally:
            if has_ended and self._queue is not None:
                self._queue.leave(split)
        return outcome

    def follow(self) -> None:
        """Do nothing: the logs of a session's jobs are Ray's own."""

    def cancel(self) -> None:
        """Stop all jobs; their checkpoints stay."""
        closing.set()
        for run in self._runs.values():
            run.cancel()


class SessionCluster:
    """The cluster of the open session.

    Args:
        capacity: of the cluster.
        is_embedded: whether it is an embedded Ray, of this process alone.
    """

    def __init__(self, capacity: Capacity, *, is_embedded: bool) -> None:
        self._capacity = capacity
        self._is_embedded = is_embedded

    def allocate(self, request: ResourceRequest) -> Allocation:
        """What each job gets.

        Raises:
            ThyroError: a job needs more than the cluster has.
        """
        jobs_per_gpu = 1
        if self._capacity.gpus and request.gpus is None:
            jobs_per_gpu = jobs_that_fit(trainer.smallest_gpu(), request.gpu_bytes)
        resources = job_resources(self._capacity, request, jobs_per_gpu)
        precision = trainer.job_precision(request.precision, resources, request.node_patience)
        return Allocation(resources, precision)

    @contextmanager
    def training(
        self, jobs: Sequence[SplitJob], policy: RestartPolicy
    ) -> Iterator[SessionTraining]:
        """Split jobs that train while the block runs; an interrupt stops them."""
        training = SessionTraining(jobs, policy, is_embedded=self._is_embedded)
        try:
            yield training
        except BaseException:
            training.cancel()
            raise
