"""The cluster at an address: joined as a driver, or reached by its job server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from thyro_core.cluster.resources import Allocation, ResourceRequest
from thyro_core.cluster.session import session
from thyro_core.study.job import RestartPolicy, SplitJob, SplitOutcome


class Training(Protocol):
    """The split jobs of a study while they train."""

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, after a short wait; None: it still runs.

        Raises:
            ThyroError: it cannot be finished.
        """

    def follow(self) -> None:
        """Pass on what the cluster logs of the study, until the study ends there."""


class Cluster(Protocol):
    """Where a study trains."""

    def allocate(self, request: ResourceRequest) -> Allocation:
        """What each job gets; raises ThyroError if the cluster has too little."""

    def training(
        self, jobs: Sequence[SplitJob], policy: RestartPolicy
    ) -> AbstractContextManager[Training]:
        """Split jobs that train while the block runs; an interrupt stops them."""


@contextmanager
def connect(address: str, log: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster at an address for as long as the block runs.

    Args:
        address: `local`, `auto` or `host:port`: this process joins the cluster; http://head:8265:
            it only speaks to the job server of the cluster's dashboard.
        log: called with each line for people while `Training.follow` runs.

    Raises:
        InputError: no cluster answers at the address, or it refuses this process.
    """
    if address.startswith(("http://", "https://")):
        from thyro_core.cluster.job_server import connect_job_server
        from thyro_core.cluster.jobs_cluster import JobsCluster

        yield JobsCluster(connect_job_server(address), log)
        return
    with session(address) as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        yield SessionCluster(capacity, is_embedded=address == "local")
