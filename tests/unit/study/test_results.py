"""A study's results for notebooks: the store's rows, in pandas and Arrow."""

import pandas as pd
import pytest

from tests.support.finished_study import finished_study
from thyro_core import load_study
from thyro_core.errors import InputError
from thyro_core.store.keys import report_key
from thyro_core.tables.io import read_table


def test_a_study_gives_its_own_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    store, plan = finished_study(tmp_path_factory.mktemp("study"), splits=2, epochs=1)
    study = load_study(store.url, plan.study_id)
    for name in ("metrics", "predictions", "cams"):
        rows = read_table(store, name, study_id=plan.study_id)
        # Not `equals`: what is undefined with two splits is NaN.
        pd.testing.assert_frame_equal(study.table(name).to_pandas(), rows.to_pandas())
        frame = getattr(study, name)()
        assert list(frame.columns) == rows.column_names
        assert len(frame) == rows.num_rows > 0
    assert study.status().concluded
    with pytest.raises(InputError, match=f"found none; run `thyro report {plan.study_id}`"):
        study.report()
    store.write(report_key(plan.study_id), b"<html>\xc3\xa9</html>")
    assert study.report() == "<html>é</html>"
    with pytest.raises(InputError, match="screening: expected the name of a study's table"):
        study.table("screening")
    with pytest.raises(InputError, match="expected a study s0, found s"):
        load_study(store, "s0")
