"""Keys of the store: where everything lies is a promise to whoever reads it with other tools."""

import re

from hypothesis import given
from hypothesis import strategies as st

from thyro_core.store.keys import (
    checkpoint_key,
    manifest_key,
    model_key,
    pack_key,
    progress_key,
    run_key,
    study_key,
    summary_key,
    table_key,
    table_prefix,
    weights_key,
)

names = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True)


def test_every_key_is_where_the_documentation_says() -> None:
    assert table_key("metrics", study_id="s1") == "tables/metrics/study_id=s1/part-0.parquet"
    assert table_key("runs", study_id="s1", split=3, architecture="vgg16") == (
        "tables/runs/study_id=s1/split=3/architecture=vgg16/part-0.parquet"
    )
    assert table_key("runs") == "tables/runs/part-0.parquet"
    assert table_prefix("runs") == "tables/runs"
    assert pack_key("m1", 224) == "packs/m1/224.npy"
    assert manifest_key("m1") == "manifests/m1.json"
    assert study_key("s1") == "studies/s1/config.json"
    assert summary_key("s1") == "studies/s1/summary.md"
    assert progress_key("s1", 3) == "studies/s1/progress/split=3.json"
    tail = "split=3/architecture=vgg16"
    assert checkpoint_key("s1", 3, "vgg16") == f"studies/s1/checkpoints/{tail}.pt"
    assert model_key("s1", 3, "vgg16") == f"studies/s1/models/{tail}.safetensors"
    assert run_key("s1", 3, "vgg16") == f"studies/s1/runs/{tail}.json"
    assert weights_key("vgg16", "0123456789abcdef" * 4) == (
        "weights/vgg16-0123456789abcdef.safetensors"
    )


@given(names, st.integers(0, 99), names, st.integers(0, 99), names, names)
def test_different_work_never_shares_a_key(
    study: str, split: int, architecture: str, other_split: int, other: str, other_study: str
) -> None:
    one = (study, split, architecture)
    two = (other_study, other_split, other)
    for make in (checkpoint_key, model_key, run_key):
        assert (make(*one) == make(*two)) == (one == two)
    kinds = (checkpoint_key, model_key, run_key)
    assert len({make(*one) for make in kinds} | {progress_key(study, split)}) == 4


@given(names, names, st.integers(0, 99))
def test_a_tables_key_is_under_its_prefix_and_gives_its_hive_keys_back(
    table: str, study: str, split: int
) -> None:
    key = table_key(table, study_id=study, split=split)
    assert key.startswith(table_prefix(table) + "/")
    assert re.findall(r"(\w+)=([^/]+)/", key) == [("study_id", study), ("split", str(split))]
