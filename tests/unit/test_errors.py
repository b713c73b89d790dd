"""Figures in a sentence that gives a reason."""

import pickle

import pytest

from thyro_core.errors import Failure, InputError, ThyroError, WorkerFailedError, beyond


@pytest.mark.parametrize(
    ("value", "bound", "decimals", "text"),
    [
        (1.394, 3.0, 2, "1.39"),
        (2.9962, 3.0, 2, "2.996"),  # not "3.00, expected at least 3"
        (0.02004, 0.02, 3, "0.02004"),
        (0.5, 0.02, 3, "0.500"),
        (27.5568, 27.5567, 2, "27.56"),
        (27.5543, 27.5542, 2, "27.5543"),  # not "27.55", which is less
        (0.0, 8.0, 1, "0.0"),
        (float("nan"), 3.0, 2, "nan"),
        (3.0, 3.0, 2, "3.00"),
    ],
)
def test_a_figure_beyond_a_bound_reads_so(
    value: float, bound: float, decimals: int, text: str
) -> None:
    assert beyond(value, bound, decimals) == text


def test_a_failure_crosses_processes_and_reads_as_one_sentence() -> None:
    failure = Failure.of(ValueError("no such luck"), {"worker": "1 of 2"})
    error = pickle.loads(pickle.dumps(WorkerFailedError("vgg16", failure)))
    assert error.failure == failure
    assert str(error) == "vgg16: worker 1 of 2: ValueError: no such luck"


def test_a_failure_becomes_an_error_of_its_kind_again() -> None:
    error = Failure.of(InputError("x.pth: damaged")).to_error()
    assert type(error) is InputError
    assert str(error) == "x.pth: damaged"
    assert type(Failure.of(KeyError("x")).to_error()) is ThyroError
