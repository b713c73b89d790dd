"""Resources of jobs, and what a user hears when there are too few or no cluster."""

import pytest

from thyro_core.cluster.session import Capacity, JobResources, closing, job_resources, session
from thyro_core.cluster.split_jobs import outcome
from thyro_core.errors import InputError, ThyroError
from thyro_core.job_spec import SplitJob


@pytest.mark.parametrize(
    ("capacity", "jobs", "expected"),
    [
        (Capacity(2, 0), 10, JobResources(1, 0.0)),
        (Capacity(16, 1), 10, JobResources(1, 0.1)),
        (Capacity(64, 4), 10, JobResources(1, 1 / 3)),
        (Capacity(64, 8), 10, JobResources(1, 0.5)),
        (Capacity(64, 16), 10, JobResources(1, 1.0)),
    ],
)
def test_gpus_are_shared_so_that_all_jobs_run_at_once(capacity, jobs, expected) -> None:
    found = job_resources(capacity, 1, None, jobs)
    assert found == expected
    if found.gpus:
        assert int(1 / found.gpus + 1e-9) * capacity.gpus >= jobs


def test_what_was_asked_for_is_given() -> None:
    assert job_resources(Capacity(8, 2), 4, 0.5, 10) == JobResources(4, 0.5)
    assert job_resources(Capacity(8, 2), 4, 0.0, 10) == JobResources(4, 0.0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [(3, None, "needs 3 CPU, and the whole cluster has 2"), (1, 1.0, "needs 1 GPU.*has 0")],
)
def test_too_small_a_cluster_is_refused_by_the_resource_it_lacks(cpus, gpus, said) -> None:
    with pytest.raises(ThyroError, match=said):
        job_resources(Capacity(2, 0), cpus, gpus, 10)


def test_a_closing_session_stops_who_watches_a_job() -> None:
    closing.set()
    try:
        with pytest.raises(ThyroError, match="split 3 was stopped"):
            outcome(SplitJob("memory://x", "s1", 3, "/tmp"), None, 0)
    finally:
        closing.clear()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "nonsense"])
def test_no_cluster_at_the_address_is_said_with_the_cure(address) -> None:
    with pytest.raises(InputError, match=r"expected a cluster.*ray start --head"), session(address):
        pass
