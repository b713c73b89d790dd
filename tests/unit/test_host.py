"""What a process may use of its machine, on machines that tests make up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY
from thyro_core import host
from thyro_core.errors import InputError
from thyro_core.settings import Settings


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)
    monkeypatch.setattr(host, "machine_memory", lambda: 64 << 30)


def limited(root: Path, names: tuple[str, ...], texts: tuple[str, ...], groups: str) -> Path:
    """A machine whose process is in these control groups, with these limits."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in zip(names, texts, strict=True):
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is / to the module."""
    monkeypatch.setattr(host, "_ROOT", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize(
    ("groups", "names", "texts", "cores", "memory"),
    [
        ("0::/\n", (), (), 16, 64 << 30),
        ("0::/\n", ("cpu.max", "memory.max"), ("max 100000\n", "max\n"), 16, 64 << 30),
        ("0::/\n", ("cpu.max", "memory.max"), ("350000 100000\n", f"{8 << 30}\n"), 3, 8 << 30),
        ("0::/\n", ("cpu.max",), ("20000 100000\n",), 1, 64 << 30),
        (
            "0::/system.slice/slurm/job_7\n",
            ("system.slice/slurm/job_7/cpu.max", "system.slice/memory.max"),
            ("400000 100000\n", f"{4 << 30}\n"),
            4,
            4 << 30,
        ),
        (
            "5:cpu,cpuacct:/a\n4:memory:/b\n",
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "cpu,cpuacct/a/cpu.cfs_period_us"),
            ("200000\n", "100000\n"),
            2,
            64 << 30,
        ),
        (
            "5:cpu,cpuacct:/a\n4:memory:/b\n",
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "memory/b/memory.limit_in_bytes"),
            ("-1\n", f"{2 << 30}\n"),
            16,
            2 << 30,
        ),
        ("0::/not/here\n", ("memory.max",), (f"{1 << 30}\n",), 16, 1 << 30),
    ],
)
def test_the_least_of_all_limits_counts(root, groups, names, texts, cores, memory) -> None:
    limited(root, names, texts, groups)
    assert (host.cores(), host.memory()) == (cores, memory)


def test_a_machine_without_affinity_and_control_groups_has_all_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(host, "_ROOT", tmp_path)
    assert host.cores() == os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_one_core_of_taskset_is_one_core() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from thyro_core import host; print(host.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


class TestScratchFolder:
    def test_it_is_the_users_cache_and_nobody_elses(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        folder = host.scratch_folder(Settings())
        assert folder == tmp_path / "cache/thyro"
        assert folder.stat().st_mode & 0o777 == 0o700
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert host.scratch_folder(Settings()) == tmp_path / "home/.cache/thyro"

    def test_a_folder_of_ones_own_is_used_as_it_is(self, tmp_path) -> None:
        for given in (tmp_path, tmp_path / "new"):
            assert host.scratch_folder(Settings(scratch=given)) == given

    def test_in_a_shared_folder_each_user_has_one(self, tmp_path) -> None:
        tmp_path.chmod(0o1777)
        folder = host.scratch_folder(Settings(scratch=tmp_path))
        assert folder == tmp_path / f"user-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_the_nodes_own_setting_stands_above_the_jobs(self, tmp_path) -> None:
        node, job = tmp_path / "node", tmp_path / "job"
        assert host.scratch_folder(Settings(scratch=node), str(job)) == node
        assert host.scratch_folder(Settings(), str(job)) == job

    @pytest.mark.parametrize("kind", ["writable", "link"])
    def test_what_others_may_have_put_there_is_refused(self, tmp_path, monkeypatch, kind) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        if kind == "link":
            (tmp_path / "thyro").symlink_to(elsewhere)
        else:
            elsewhere.rename(tmp_path / "thyro").chmod(0o777)
        with pytest.raises(InputError, match="expected a folder of this user alone"):
            host.scratch_folder(Settings())

    def test_a_home_that_takes_no_folder_is_one_sentence(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(InputError, match="can be made, found Not a directory; set THYRO_SC"):
            host.scratch_folder(Settings())
        with pytest.raises(InputError, match="can be made, found Not a directory; set THYRO_SC"):
            host.scratch_folder(Settings(scratch=tmp_path / "file/below"))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
    def test_another_users_folder_is_refused(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "thyro").mkdir(mode=0o700)
        os.chown(tmp_path / "thyro", 12345, 12345)
        with pytest.raises(InputError, match="found one of user 12345"):
            host.scratch_folder(Settings())


class TestLoopback:
    def test_without_a_proxy_nothing_changes(self) -> None:
        environment = {"PATH": "/bin"}
        host.keep_loopback_direct(environment)
        assert environment == {"PATH": "/bin"}

    def test_with_one_this_machine_is_exempt_beside_what_was(self) -> None:
        environment = {"https_proxy": "http://proxy:3128", "no_proxy": "intra.example, localhost"}
        host.keep_loopback_direct(environment)
        expected = "intra.example,localhost,127.0.0.1,::1"
        assert environment["NO_PROXY"] == environment["no_proxy"] == expected
        before = dict(environment)
        host.keep_loopback_direct(environment)
        assert environment == before

    def test_a_request_to_loopback_meets_no_proxy(self) -> None:
        code = (
            "import os, socket\n"
            "os.environ['HTTP_PROXY'] = os.environ['ALL_PROXY'] = 'http://192.0.2.1:9'\n"
            "from thyro_core.host import keep_loopback_direct\n"
            "keep_loopback_direct()\n"
            "import httpx\n"
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "url = f'http://127.0.0.1:{server.getsockname()[1]}'\n"
            "from threading import Thread\n"
            "def answer():\n"
            "    peer, _ = server.accept(); peer.recv(999)\n"
            "    peer.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok')\n"
            "Thread(target=answer, daemon=True).start()\n"
            "print(httpx.get(url, timeout=20).text)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "ok\n", done.stderr


class TestUnusableProxies:
    def test_proxies_that_speak_no_http_are_taken_out_and_named(self) -> None:
        environment = {
            "ALL_PROXY": "socks5://me:secret@192.0.2.1:1080", "all_proxy": "SOCKS://192.0.2.1:1",
            "http_proxy": "http://proxy:3128", "HTTPS_PROXY": "proxy:3128", "FTP_PROXY": "ftp://x",
        }  # fmt: skip
        kinds = host.drop_unusable_proxies(environment)
        assert kinds == {"ALL_PROXY": "socks5", "all_proxy": "socks"}
        assert environment.keys() == {"http_proxy", "HTTPS_PROXY", "FTP_PROXY"}
        assert host.drop_unusable_proxies(environment) == {}

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks"])
    def test_prefects_client_starts_beside_one(self, scheme: str) -> None:
        code = (
            "import sys\n"
            "from flows.cli.main import main\n"
            "sys.argv = ['thyro', '--version']\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "import httpx\n"
            "httpx.Client().close()\n"
        )
        proxies = {"ALL_PROXY": f"{scheme}://me:secret@192.0.2.1:1080"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, env=os.environ | proxies, check=True,
        )  # fmt: skip
        assert f"ALL_PROXY names a proxy of the kind {scheme}, which" in done.stderr
        assert "secret" not in done.stderr


def test_the_peak_is_bytes_on_either_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert host.peak_bytes(7) == 7 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host.peak_bytes(7) == 7


LINUX_ALONE = {
    "errno": {"EREMOTEIO", "ECOMM", "ENOMEDIUM", "EMEDIUMTYPE", "ENONET", "EUCLEAN", "ESTRPIPE"},
    "os": {"sched_getaffinity", "sched_setaffinity", "sched_yield", "pidfd_open", "memfd_create"}
    | {"posix_fallocate", "posix_fadvise", "sendfile", "splice", "eventfd", "getrandom"},
    "resource": {"prlimit", "RLIMIT_OFILE", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO"},
    "signal": {"sigwaitinfo", "sigtimedwait", "SIGRTMIN", "SIGRTMAX", "SIGPOLL", "SIGPWR"},
    "select": {"epoll"},
}
"""Names of the standard library that macOS lacks, which would end a program as it starts there."""


def test_no_module_needs_what_linux_alone_has() -> None:
    files = [*(REPOSITORY / "thyro_core").rglob("*.py"), *(REPOSITORY / "flows").rglob("*.py")]
    assert len(files) > 100
    uses = {
        f"{file.relative_to(REPOSITORY)}: {match.group()}"
        for file in files
        for match in re.finditer(r"\b([a-z]+)\.(\w+)", file.read_text(encoding="utf-8"))
        if match[2] in LINUX_ALONE.get(match[1], ())
    }
    assert uses == set()
