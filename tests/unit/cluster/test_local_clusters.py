"""Which cluster `auto` joins, and what is said where there is none to join."""

from pathlib import Path

import pytest

from thyro_core.cluster import local_clusters
from thyro_core.errors import InputError


def processes(folder: Path, *lines: list[str]) -> Path:
    """A folder like Linux's /proc."""
    for number, words in enumerate(lines, 1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    (folder / "self").mkdir()
    (folder / "self" / "cmdline").write_bytes(b"python\0")
    return folder


def clusters_of(folder: Path) -> list[str]:
    """The clusters that a folder like /proc shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_clusters, "_PROC", folder)
        return local_clusters.local_clusters()


def raylet(address: str) -> list[str]:
    return ["/opt/ray/core/src/ray/raylet/raylet", "--node_id=1", f"--gcs-address={address}"]


def test_clusters_are_found_by_their_processes(tmp_path: Path) -> None:
    shell = ["bash", "-c", "raylet --gcs-address=10.0.0.9:6379"]
    once, again, other = raylet("10.0.0.1:6379"), raylet("10.0.0.1:6379"), raylet("10.0.0.2:1")
    assert clusters_of(processes(tmp_path, once, shell, again, other)) == [
        "10.0.0.1:6379",
        "10.0.0.2:1",
    ]


@pytest.fixture
def system_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, on a machine such as macOS."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_proc_the_processes_are_those_that_ps_lists(system_without_proc: Path) -> None:
    lines = [raylet("10.0.0.1:6379"), raylet("10.0.0.2:1"), ["bash", "-c", *raylet("10.0.0.9:1")]]
    program = system_without_proc / "ps"
    text = "\n".join(" ".join(words) for words in [*lines, []])
    program.write_text(f"#!/bin/sh\n[ \"$*\" = '-axww -o command=' ] && echo '{text}'\n")
    program.chmod(0o755)
    no_proc = system_without_proc / "no such folder"
    assert clusters_of(no_proc) == ["10.0.0.1:6379", "10.0.0.2:1"]
    # A folder of that name that shows none: /proc of a BSD that is not mounted.
    (system_without_proc / "empty").mkdir()
    assert clusters_of(system_without_proc / "empty") == [
        "10.0.0.1:6379",
        "10.0.0.2:1",
    ]


@pytest.mark.parametrize("program", [None, "#!/bin/sh\nexit 1\n"])
def test_where_processes_are_not_shown_an_address_is_asked_for(
    system_without_proc: Path, program: str | None
) -> None:
    if program is not None:
        (system_without_proc / "ps").write_text(program)
        (system_without_proc / "ps").chmod(0o755)
    with pytest.raises(
        InputError, match=r"expected the processes.*say which one \(--ray host:port"
    ):
        clusters_of(system_without_proc / "no such folder")


def test_a_container_with_a_network_of_its_own_is_no_cluster_of_this_machine(tmp_path) -> None:
    raylets = [raylet(f"10.0.0.{number}:6379") for number in (1, 2, 3)]
    folder = processes(tmp_path, *raylets)
    for name, network in {"self": "net:[1]", "1": "net:[1]", "2": "net:[2]"}.items():
        (folder / name / "ns").mkdir()
        (folder / name / "ns/net").symlink_to(network)
    # Of the third nobody may know: another user's.
    assert clusters_of(folder) == ["10.0.0.1:6379", "10.0.0.3:6379"]


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_clusters, "local_clusters", lambda: ["10.0.0.1:1", "10.0.0.2:2"])
    for address in ("10.0.0.3:6379", "local"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert local_clusters.one_cluster() == address
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match=r"found 10\.0\.0\.1:1, 10\.0\.0\.2:2; say which one"):
        local_clusters.one_cluster()


def test_one_cluster_is_named_and_of_several_none_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(local_clusters, "local_clusters", lambda: ["10.0.0.1:1"])
    assert local_clusters.one_cluster() == "10.0.0.1:1"
    assert "joins the cluster at 10.0.0.1:1" in caplog.text
    monkeypatch.setattr(local_clusters, "local_clusters", lambda: ["10.0.0.1:1", "10.0.0.2:2"])
    with pytest.raises(InputError, match=r"found 10\.0\.0\.1:1, 10\.0\.0\.2:2; say which one"):
        local_clusters.one_cluster()
    monkeypatch.setattr(local_clusters, "local_clusters", list)
    assert local_clusters.one_cluster() == "auto", "Ray says that there is none"
