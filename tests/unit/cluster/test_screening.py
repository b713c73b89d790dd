"""How a cluster is shared out, and what a leader hears of its workers' errors."""

import pytest
from ray import exceptions

from thyro_core.cluster import screening
from thyro_core.cluster.resources import Capacity
from thyro_core.cluster.screening import Pools, pools, run_blocks
from thyro_core.errors import InputError, ThyroError
from thyro_core.screening.rules import Counts

ONE = Pools(1, 1.0, 0.0, 1, 0.0)


@pytest.mark.parametrize(
    ("capacity", "cpus", "gpus", "expected"),
    [
        (Capacity(2, 0), 1, None, Pools(2, 1.0, 0.0, 1, 0.0)),
        (Capacity(1, 0), 1, None, Pools(1, 1.0, 0.0, 1, 0.0)),
        (Capacity(1, 0), 4, None, Pools(1, 1.0, 0.0, 1, 0.0)),
        (Capacity(64, 0), 4, None, Pools(16, 4.0, 0.0, 4, 0.0)),
        (Capacity(16, 1), 1, None, Pools(1, 1.0, 1.0, 15, 1.0)),
        (Capacity(128, 8), 1, None, Pools(8, 1.0, 1.0, 120, 1.0)),
        (Capacity(16, 1), 1, 0.5, Pools(2, 1.0, 0.5, 14, 1.0)),
        (Capacity(4, 8), 1, None, Pools(8, 0.25, 1.0, 2, 0.25)),
        (Capacity(16, 2), 1, 0.0, Pools(16, 1.0, 0.0, 4, 0.0)),
    ],
)
def test_a_cluster_is_shared_out(capacity, cpus, gpus, expected) -> None:
    assert pools(capacity, cpus, gpus) == expected


@pytest.mark.parametrize("cpus", range(1, 40))
@pytest.mark.parametrize("gpus", [0, 1, 3, 8])
def test_actors_never_ask_for_more_than_there_is(cpus, gpus) -> None:
    """Or they would wait for each other for ever."""
    found = pools(Capacity(cpus, gpus), 2, None)
    asked = found.scorers * found.scorer_cpus + found.decoders * found.decoder_cpus
    assert asked <= cpus + 1e-9
    assert found.scorers * found.scorer_gpus <= gpus
    assert min(found.scorers, found.decoders) >= 1


def failing(*errors: Exception):
    """Stands for the stream; fails so, one after the other, and then succeeds."""
    left = list(errors)

    def once(job, sizes, progress):
        if left:
            raise left.pop(0)
        return Counts(files=1, fresh=1)

    return once


def test_a_stream_whose_worker_died_is_started_again(monkeypatch) -> None:
    asked = []
    died = exceptions.ActorDiedError()
    monkeypatch.setattr(screening, "_run_once", failing(died, died))
    found = run_blocks(lambda: asked.append(1), ONE, 2, lambda _: None)
    assert found == Counts(files=1, fresh=1)
    assert len(asked) == 3, "each start passes over what is finished by then"


def test_workers_that_die_too_often_are_said_with_the_cure(monkeypatch) -> None:
    monkeypatch.setattr(screening, "_run_once", failing(*[exceptions.ActorDiedError()] * 3))
    with pytest.raises(ThyroError, match=r"died 3 times \(ActorDiedError.*THYRO_CPUS_PER_JOB"):
        run_blocks(lambda: None, ONE, 2, lambda _: None)


@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (InputError("m: expected SHA-256"), InputError, "m: expected SHA-256"),
        (ThyroError("no map"), ThyroError, "screening failed: no map; what is finished is kept"),
        # Foreign errors may quote what they were given, a name among it: only their kind is said.
        (ValueError("Nowak.png"), ThyroError, "screening failed: ValueError;"),
    ],
)
def test_a_workers_error_is_said_and_not_tried_again(monkeypatch, cause, kind, said) -> None:
    error = exceptions.RayTaskError("f", "Traceback with Nowak.png", cause)
    monkeypatch.setattr(screening, "_run_once", failing(error))
    with pytest.raises(kind) as failed:
        run_blocks(lambda: None, ONE, 2, lambda _: None)
    assert str(failed.value).startswith(said)
    assert "Nowak" not in str(failed.value)
