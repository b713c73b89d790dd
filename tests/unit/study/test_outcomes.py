"""How splits ended on a cluster, as the store tells the flow that waits elsewhere."""

from thyro_core.errors import Failure
from thyro_core.store.store import open_store
from thyro_core.study.job import SplitOutcome
from thyro_core.study.outcomes import read_outcomes, write_outcome

DONE = SplitOutcome(0, ("resnet18",), {"vgg16": Failure("ValueError", "no", {"worker": "1 of 2"})})
SECRET = "at s3://user:secret@host/b?sig=1"


def test_outcomes_come_back_and_those_of_another_submission_are_left_out(tmp_path) -> None:
    store = open_store(str(tmp_path))
    assert read_outcomes(store, "s1", "job-2", (0, 1, 2)) == {}
    write_outcome(store, "s1", "job-2", 0, DONE)
    lost = Failure("ThyroError", "its process died 4 times")
    write_outcome(store, "s1", "job-1", 1, lost)
    write_outcome(store, "s1", "job-2", 2, Failure("StoreError", SECRET))
    expected = {0: DONE, 2: Failure("StoreError", "at s3://host/b")}
    assert read_outcomes(store, "s1", "job-2", (0, 1, 2)) == expected
    assert read_outcomes(store, "s1", "job-2", (0,)) == {0: DONE}
    assert read_outcomes(store, "s1", "job-1", (0, 1, 2)) == {1: lost}


def test_no_secret_of_a_failed_architecture_is_written(tmp_path) -> None:
    store = open_store(str(tmp_path))
    outcome = SplitOutcome(0, (), {"vgg16": Failure("OSError", SECRET)})
    write_outcome(store, "s1", "job-1", 0, outcome)
    redacted = SplitOutcome(0, (), {"vgg16": Failure("OSError", "at s3://host/b")})
    assert read_outcomes(store, "s1", "job-1", (0,)) == {0: redacted}
