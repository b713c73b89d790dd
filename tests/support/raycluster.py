"""A Ray cluster of several nodes on one machine: each as far from the others as the kernel allows.

As root on Linux a node has its own network namespace (a cable to a bridge), host name, /etc/hosts
and /tmp; elsewhere it is a process group on loopback with its own ports. Either way it has its own
resources, scratch and home, and shares nothing with other nodes but S3 and the program's files.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.s3server import S3Server, running_server

DEADLINE = 400
TOKEN = "given-for-these-tests-alone-0123456789"
BINARIES = Path(sys.executable).parent
_MARK = "RAYCLUSTER_NODE"
_GCS = 6379
# Inside a node's namespaces: its own name, /tmp and hosts; nobody there answers for a name.
_MOVE_IN = """
hostname "$1" && mount --bind "$2/hosts" /etc/hosts && mount --bind /dev/null /etc/resolv.conf &&
mount --bind "$2/tmp" /tmp && shift 2 && exec "$@"
"""


@cache
def namespaces_allowed() -> bool:
    """Whether this machine lets us make network namespaces, bridges and mounts."""
    # Each node has its own /tmp: what lies below this machine's is not there.
    hidden = any(Path("/tmp") in Path(path).resolve().parents for path in (__file__, sys.prefix))
    if hidden or sys.platform != "linux" or os.getuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"thyro-try-{os.getpid()}"
    try:
        made = _ip(f"netns add {name}", check=False)
        inside = ["unshare", "--uts", "sh", "-c", "hostname x && mount --bind /var /tmp"]
        entered = _quiet(["ip", "netns", "exec", name, *inside])
        bridged = _ip(f"link add tt{os.getpid()} type bridge", check=False)
        return made and entered and bridged
    finally:
        _ip(f"link del tt{os.getpid()}", check=False)
        _ip(f"netns del {name}", check=False)


def _ip(words: str, *, check: bool = True) -> bool:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"ip {words}: {done.stderr}"
    return done.returncode == 0


def _quiet(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Network:
    """A bridge of this machine and a cable from it to each node; or loopback."""

    def __init__(self) -> None:
        self.real = namespaces_allowed()
        pid = os.getpid()
        self._bridge = f"ty{pid}"
        self._subnet = f"10.{100 + pid // 250 % 100}.{pid % 250}"
        self._nodes: list[str] = []
        self.host = f"{self._subnet}.1" if self.real else "127.0.0.1"

    def __enter__(self) -> "Network":
        if self.real:
            _sweep()
            _ip(f"link add {self._bridge} type bridge")
            _ip(f"addr add {self.host}/24 dev {self._bridge}")
            _ip(f"link set {self._bridge} up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self._nodes:
            self.cut(namespace)
            _ip(f"netns del {namespace}", check=False)
        if self.real:
            _ip(f"link del {self._bridge}", check=False)

    def join(self) -> tuple[str, str]:
        """A place for one more node: its namespace (empty on loopback) and its address."""
        if not self.real:
            return "", self.host
        number = len(self._nodes) + 2
        namespace, cable = f"thyro-{os.getpid()}-{number}", f"{self._bridge}n{number}"
        _ip(f"netns add {namespace}")
        self._nodes.append(namespace)
        address = f"{self._subnet}.{number}"
        _ip(f"link add {cable} type veth peer name eth0 netns {namespace}")
        _ip(f"link set {cable} master {self._bridge} up")
        _ip(f"-n {namespace} addr add {address}/24 dev eth0")
        _ip(f"-n {namespace} link set lo up")
        _ip(f"-n {namespace} link set eth0 up")
        # Leads nowhere; without it the node would not know its own address.
        _ip(f"-n {namespace} route add default via {self.host}")
        return namespace, address

    def cut(self, namespace: str) -> None:
        """Pull the cable: nobody hears from the node again, and it does not say goodbye."""
        if namespace:
            number = namespace.rpartition("-")[2]
            _ip(f"link del {self._bridge}n{number}", check=False)


def _sweep() -> None:
    """Remove what test runs that were killed have left."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for name in (line.split()[0] for line in listed.stdout.splitlines()):
        owner = name.removeprefix("thyro-").split("-")[0]
        if name.startswith("thyro-") and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _ip(f"netns del {name}", check=False)
            _ip(f"link del ty{owner}", check=False)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def wait_until(met: Callable[[], object], what: str, log: Path | None = None) -> None:
    """Wait for something that happens soon on any machine."""
    deadline = time.monotonic() + DEADLINE
    while not met():
        said = log.read_text()[-3000:] if log else ""
        assert time.monotonic() < deadline, f"never happened: {what}\n{said}"
        time.sleep(0.2)


@dataclass
class Node:
    """One machine of the cluster, as its processes see it."""

    name: str
    namespace: str
    address: str
    folder: Path
    """Of this machine: what the node sees as /tmp (or as its own folder), its log."""
    environment: dict[str, str]
    started: "list[subprocess.Popen[Any]]" = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """Its scratch folder, as this machine sees it."""
        return self.folder / "tmp" / "scratch"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def command(self, words: Sequence[str]) -> list[str]:
        """A command that runs on this node, and ends with whoever starts it."""
        tethered = [sys.executable, "-m", "flows.serving.child_process"]
        if not self.namespace:
            return [*tethered, *words]
        inside = ["unshare", "--uts", "sh", "-c", _MOVE_IN, "sh", self.name, str(self.folder)]
        return [*tethered, "ip", "netns", "exec", self.namespace, *inside, *words]

    def popen(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a command on this node."""
        environment = self.environment | options.pop("env", {})
        process = subprocess.Popen(
            self.command(words), env=environment, start_new_session=True, cwd="/", **options
        )
        self.started.append(process)
        return process

    def pids(self, title: str = "") -> list[int]:
        """Processes of this node, by how their titles begin."""
        mark = f"{_MARK}={self.environment[_MARK]}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    ours = mark in (entry / "environ").read_bytes().split(b"\0")
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if ours and line.startswith(title.encode()):
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End everything on the node at once, like a power cut."""
        deadline = time.monotonic() + 60
        while pids := self.pids():
            assert time.monotonic() < deadline, f"{self.name}: {pids} do not die"
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for process in self.started:
                process.poll()
            time.sleep(0.05)
        for process in self.started:
            process.wait()

    def has_started(self) -> bool:
        """Whether its Ray has joined the cluster.

        Raises:
            AssertionError: it ended instead.
        """
        said = self.log.read_text()
        assert self.started[0].poll() is None, said
        return "Ray runtime started" in said


@dataclass
class RayCluster:
    """A head and workers to start, lose and start again; a node without CPUs for the driver."""

    network: Network
    s3: S3Server
    folder: Path
    dashboard: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the head listens for drivers and nodes."""
        return f"{self.nodes['head'].address}:{self._ports['gcs']}"

    @property
    def jobs_address(self) -> str:
        """Where the head takes jobs; only with `dashboard`."""
        return f"http://{self.nodes['head'].address}:{self._ports['dashboard']}"

    def start(self, workers: int = 2, cpus: int = 1) -> None:
        """The head, the driver's node and workers."""
        self.start_head()
        self.add("driver", cpus=0)
        for number in range(1, workers + 1):
            self.add(f"worker-{number}", cpus=cpus)

    def start_head(self) -> None:
        """A new head; at the address of the one before, if there was one."""
        loopback = dict(zip(("gcs", "dashboard"), free_ports(2), strict=True))
        ports = {"gcs": _GCS, "dashboard": 8265} if self.network.real else loopback
        self._ports = self._ports or ports
        self._start(
            "head",
            ["--head", f"--port={self._ports['gcs']}", "--num-cpus=0",
             f"--dashboard-port={self._ports['dashboard']}",
             f"--include-dashboard={str(self.dashboard).lower()}", "--dashboard-host=0.0.0.0"],
            {},
        )  # fmt: skip

    def add(self, name: str, cpus: int = 1, environment: Mapping[str, str] | None = None) -> Node:
        """One more node, or the node of this name anew; it has joined when this returns."""
        words = [f"--address={self.address}", f"--num-cpus={cpus}"]
        return self._start(name, words, environment or {})

    def _start(self, name: str, words: list[str], extra: Mapping[str, str]) -> Node:
        before = self.nodes.get(name)
        namespace, address = self.network.join() if before is None else (
            before.namespace, before.address
        )  # fmt: skip
        folder = Path(tempfile.mkdtemp(prefix="tn", dir=self.folder))
        node = Node(name, namespace, address, folder, {})
        (folder / "tmp" / "home").mkdir(parents=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        node.environment = self._environment(node) | extra
        self.nodes[name] = node
        agent = [] if namespace else [f"--dashboard-agent-listen-port={free_ports(1)[0]}"]
        with node.log.open("wb") as out:
            node.popen(
                ["ray", "start", *words, "--num-gpus=0", f"--node-ip-address={address}",
                 "--object-store-memory=134217728", "--disable-usage-stats", *agent, "--block"],
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(node.has_started, name, node.log)
        return node

    def _environment(self, node: Node) -> dict[str, str]:
        seen = Path("/tmp") if node.namespace else node.folder / "tmp"
        return {
            _MARK: str(node.folder),
            "HOME": str(seen / "home"),
            "PATH": f"{BINARIES}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "RAY_TMPDIR": str(seen),
            "TMPDIR": str(seen),
            "THYRO_SCRATCH": str(seen / "scratch"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "THYRO_CHECKPOINT_SECONDS": "0",
            **self.s3.environment(),
        }

    def lose(self, name: str) -> None:
        """A node goes for good: its cable is pulled, then its power."""
        node = self.nodes.pop(name)
        self.network.cut(node.namespace)
        node.kill()

    def stop(self, name: str) -> None:
        """A node ends at once, and may come back at the same address."""
        self.nodes[name].kill()

    def driver(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a command on the driver's node, told of the cluster: others may be there too."""
        told = {"THYRO_RAY": "auto", "RAY_ADDRESS": self.address}
        return self.nodes["driver"].popen(words, env=told, **options)

    def close(self) -> None:
        """End every process of every node; what starts next is a new cluster."""
        while self.nodes:
            self.lose(next(iter(self.nodes)))


@contextmanager
def ray_cluster(s3_folder: Path, *, dashboard: bool = False) -> Iterator[RayCluster]:
    """A network with an S3 server, and an empty cluster; whatever happens, nothing of it stays.

    Args:
        s3_folder: an empty folder for the S3 server's data.
        dashboard: whether the head takes jobs over HTTP.
    """
    # Short: Ray's sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="tc"))
    try:
        with Network() as network, running_server(s3_folder, network.host) as server:
            cluster = RayCluster(network, server, folder, dashboard)
            try:
                yield cluster
            finally:
                cluster.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
