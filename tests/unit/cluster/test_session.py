"""Which cluster `auto` joins, and what is said where there is none to join."""

from pathlib import Path

import pytest
import ray

from thyro_core.cluster import session as sessions
from thyro_core.errors import InputError, ThyroError


def processes(folder: Path, *lines: list[str]) -> Path:
    """A folder like Linux's /proc."""
    for number, words in enumerate(lines, 1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    return folder


def raylet(address: str) -> list[str]:
    return ["/opt/ray/core/src/ray/raylet/raylet", "--node_id=1", f"--gcs-address={address}"]


def test_clusters_are_found_by_their_processes(tmp_path: Path) -> None:
    shell = ["bash", "-c", "raylet --gcs-address=10.0.0.9:6379"]
    once, again, other = raylet("10.0.0.1:6379"), raylet("10.0.0.1:6379"), raylet("10.0.0.2:1")
    (tmp_path / "self").mkdir()
    assert sessions.local_clusters(processes(tmp_path, once, shell, again, other)) == [
        "10.0.0.1:6379",
        "10.0.0.2:1",
    ]
    assert sessions.local_clusters(tmp_path / "no such folder") == []


def test_a_container_with_a_network_of_its_own_is_no_cluster_of_this_machine(tmp_path) -> None:
    raylets = [raylet(f"10.0.0.{number}:6379") for number in (1, 2, 3)]
    folder = processes(tmp_path, *raylets)
    for name, network in {"self": "net:[1]", "1": "net:[1]", "2": "net:[2]"}.items():
        (folder / name / "ns").mkdir(parents=True)
        (folder / name / "ns/net").symlink_to(network)
    # Of the third nobody may know: another user's.
    assert sessions.local_clusters(folder) == ["10.0.0.1:6379", "10.0.0.3:6379"]


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "local_clusters", lambda: ["10.0.0.1:1", "10.0.0.2:2"])
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.3:6379")
    assert sessions._one_cluster() == "10.0.0.3:6379"


def test_one_cluster_is_named_and_of_several_none_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sessions, "local_clusters", lambda: ["10.0.0.1:1"])
    assert sessions._one_cluster() == "10.0.0.1:1"
    assert "joins the cluster at 10.0.0.1:1" in caplog.text
    monkeypatch.setattr(sessions, "local_clusters", lambda: ["10.0.0.1:1", "10.0.0.2:2"])
    with pytest.raises(InputError, match=r"found 10\.0\.0\.1:1, 10\.0\.0\.2:2; say which one"):
        sessions._one_cluster()
    monkeypatch.setattr(sessions, "local_clusters", list)
    assert sessions._one_cluster() == "auto", "Ray says that there is none"


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


def test_a_cluster_that_asks_for_a_token_is_one_sentence() -> None:
    error = RuntimeError("InvalidAuthToken: no\n" * 20)
    said = str(sessions._no_cluster("10.0.0.1:1", error))
    assert "asks for another token" in said
    assert "\n" not in said
    assert "\n" not in str(sessions._no_cluster("10.0.0.1:1", "one\ntwo"))
