"""The name of a run in Prefect's lists."""

from types import SimpleNamespace
from uuid import UUID

import pytest

from flows import artifacts

RUN = "0f9d1f6e-5a3c-4d53-9b0e-0c6f5f2f5a10"


@pytest.mark.parametrize(
    ("run_id", "before", "after"),
    [
        (RUN, "divergent-caracara", "study-s0123456789abcdef"),
        (RUN, "The run for the paper", None),
        (RUN, "study-s0123456789abcdef", None),
        (None, None, None),
    ],
    ids=["drawn", "given", "named", "no-run"],
)
def test_a_run_is_called_by_what_it_works_on_unless_it_was_given_a_name(
    monkeypatch: pytest.MonkeyPatch, run_id: str | None, before: str | None, after: str | None
) -> None:
    calls: list[tuple[UUID, str]] = []
    monkeypatch.setattr(artifacts, "flow_run", SimpleNamespace(id=run_id, name=before))
    monkeypatch.setattr(artifacts, "_rename", lambda *call: calls.append(call))
    artifacts.name_run("study-s0123456789abcdef")
    assert calls == ([] if after is None else [(UUID(RUN), after)])
