"""The cluster at an address: joined as a driver, or reached by its job server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from thyro_core.cluster.offers import Limits, Offer, Wish
from thyro_core.cluster.session import session
from thyro_core.study.job import SplitJob, SplitOutcome


class Training(Protocol):
    """The split jobs of a study while they train."""

    def outcome(self, split: int) -> SplitOutcome | None:
        """A split's outcome, waited for a moment; None: it is not over yet.

        Raises:
            ThyroError: it cannot be finished.
        """

    def follow(self) -> None:
        """Say what the cluster says of the study, while it does."""


class Cluster(Protocol):
    """Where a study trains."""

    def offer(self, wish: Wish) -> Offer:
        """What each job gets; raises ThyroError if it would be too little."""

    def training(
        self, jobs: Sequence[SplitJob], limits: Limits
    ) -> AbstractContextManager[Training]:
        """Split jobs that train while the block runs; interrupted, it stops them."""


@contextmanager
def connected(address: str, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster at an address for as long as the block runs.

    Args:
        address: `local`, `auto` or `host:port`: this process joins the cluster; http://head:8265:
            it only speaks to the job server of the cluster's dashboard.
        say: called with each line for people, as long as somebody follows.

    Raises:
        InputError: no cluster answers at the address, or it does not let us in.
    """
    if address.startswith(("http://", "https://")):
        from thyro_core.cluster.job_server import connect
        from thyro_core.cluster.jobs_cluster import JobsCluster

        yield JobsCluster(connect(address), say)
        return
    with session(address) as capacity:
        from thyro_core.cluster.session_cluster import SessionCluster

        yield SessionCluster(capacity)
