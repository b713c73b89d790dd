"""How splits ended on a cluster, as the store tells the flow that waits elsewhere."""

from thyro_core.store.store import open_store
from thyro_core.study.job import SplitOutcome
from thyro_core.study.outcomes import read_outcomes, write_outcome

DONE = SplitOutcome(0, ("resnet18",), {"vgg16": "ValueError: no"})


def test_outcomes_come_back_and_those_of_another_submission_are_left_out(tmp_path) -> None:
    store = open_store(str(tmp_path))
    assert read_outcomes(store, "s1", "job-2", (0, 1, 2)) == {}
    write_outcome(store, "s1", "job-2", 0, DONE)
    write_outcome(store, "s1", "job-1", 1, "its process died 4 times")
    write_outcome(store, "s1", "job-2", 2, "at s3://user:secret@host/b?sig=1")
    expected = {0: DONE, 2: "at s3://host/b"}
    assert read_outcomes(store, "s1", "job-2", (0, 1, 2)) == expected
    assert read_outcomes(store, "s1", "job-2", (0,)) == {0: DONE}
    assert read_outcomes(store, "s1", "job-1", (0, 1, 2)) == {1: "its process died 4 times"}
