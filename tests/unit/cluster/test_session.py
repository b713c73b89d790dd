"""How a cluster is joined, and what is said where that fails."""

import os
from pathlib import Path

import pytest
import ray

from thyro_core.cluster import session as sessions
from thyro_core.errors import ThyroError


def test_a_cluster_is_shown_the_users_token(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the mode Ray shows none, and each try to join is a line of InvalidAuthToken."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    def joined(**before: str) -> dict[str, str]:
        environment = dict(before)
        sessions._prepare_to_join(environment)
        return environment

    assert joined() == {}
    assert joined(RAY_AUTH_TOKEN="t")["RAY_AUTH_MODE"] == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("t")
    assert joined() == {"RAY_AUTH_MODE": "token"}
    assert "RAY_AUTH_MODE" not in joined(RAY_AUTH_TOKEN_PATH=str(tmp_path / "no such file"))
    assert joined(RAY_AUTH_MODE="disabled")["RAY_AUTH_MODE"] == "disabled"


def test_a_ray_of_its_own_that_does_not_start_is_one_sentence(monkeypatch) -> None:
    """Ray raises an Exception as such where its processes do not answer in half a minute."""

    def init(**_: object) -> None:
        msg = "The current node timed out during startup.\nmore"
        raise Exception(msg)  # noqa: TRY002

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ThyroError) as raised, sessions.session("local"):
        pass
    assert str(raised.value).startswith("Ray did not start on this machine: The current node timed")
    assert str(raised.value).endswith("the same command goes on")
    assert "\n" not in str(raised.value)


def test_tries_that_are_refused_are_no_lines_and_all_else_is(capfd) -> None:
    with sessions._without_refusals():
        for text in ("W gcs_client.cc: InvalidAuthToken: no\n", "W something else\n"):
            os.write(2, text.encode())
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "W something else\n"
    with pytest.raises(ZeroDivisionError), sessions._without_refusals():
        1 / 0  # noqa: B018
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_cluster_that_asks_for_a_token_is_one_sentence() -> None:
    for text in ("InvalidAuthToken: no\n" * 20, "Failed to connect to Ray cluster at 10.0.0.1:1"):
        said = str(sessions._no_cluster("10.0.0.1:1", RuntimeError(text)))
        assert "found something that does not: a cluster with another token" in said
        assert "\n" not in said
    assert "\n" not in str(sessions._no_cluster("10.0.0.1:1", "one\ntwo"))
