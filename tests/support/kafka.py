"""Apache Kafka nodes (KRaft) on loopback for the tests, from jars that Maven downloads: a single node, or three.

`KafkaNode(directory).start()` formats the storage only the first time, so that a node that was killed starts again with
its data. A node ends with the process that started it, however that ends.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.support.downloads import NotBrought, bring, kept
from tests.support.processes import end_guarded, free_ports, start_guarded

POM = Path(__file__).with_name("kafka-pom.xml")
# These nodes live for seconds or have little traffic, so the second compiler and the parallel collector cost more
# than they save. Without them a start takes 2.3 s of processor time instead of 4.6 s.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_ARCHIVE, _BOOTSTRAP = "classes.jsa", "bootstrap.checkpoint"
START_TIMEOUT = 120.0  # seconds; 2 s on a quiet machine with two cores

CONFIGURATION = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=4
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replication}
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
"""
"""The log cleaner's buffer has 128 MB by default, which a broker fills with zeros when it starts."""

STORAGE = """\
version=1
cluster.id={cluster}
node.id={node}
directory.id={directory}
"""


class KafkaUnavailable(Exception):
    """This machine cannot run Apache Kafka; the message names what is missing."""


@dataclass(frozen=True)
class Member:
    """A node's membership in a cluster: its number, the controllers' ports by number, and the id of the cluster."""

    node: int
    controllers: Mapping[int, int]
    cluster: str


class KafkaNode:
    """A node, single or in a cluster, that keeps its storage, configuration and log in `directory`."""

    def __init__(self, directory: Path, member: Member | None = None) -> None:
        self.directory = directory
        self.log = directory / "kafka.log"
        self._member = member or Member(1, {1: free_ports(1)[0]}, _random_id())
        (self._broker,) = free_ports(1)
        self._configuration = directory / "server.properties"
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, `host:port`."""
        return f"127.0.0.1:{self._broker}"

    def start(self) -> None:
        """Start the node and return when it serves.

        Raises KafkaUnavailable if this machine cannot run it, RuntimeError with the end of its log if it fails.
        """
        jars = _jars()
        prepared = _prepared(jars)
        if not self._data.exists():
            self._configure()
            self._format(prepared)
        archive = prepared / _ARCHIVE
        self._run(jars, *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []))

    def prepare(self, jars: Path, directory: Path) -> None:
        """Fill `directory` with what every node needs and Kafka makes slowly: see `_prepared`."""
        self._configure()
        tool = ["kafka.tools.StorageTool", "format", "-c", str(self._configuration), "-t", self._member.cluster]
        done = subprocess.run(
            [*_java(jars), *tool],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )
        if "UnsupportedClassVersionError" in done.stdout:
            raise KafkaUnavailable("java is older than 17")
        if done.returncode:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout[-2000:]}")
        shutil.copyfile(self._data / _BOOTSTRAP, directory / _BOOTSTRAP)
        # A Java that does not know the option starts without it and writes no archive.
        self._run(jars, "-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={directory / _ARCHIVE}")
        assert self._process is not None
        os.kill(self._server(), signal.SIGTERM)
        self._process.wait(START_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """Kill the node, as a crash would; its storage is kept."""
        if self._process is None:
            return
        end_guarded(self._process)
        self._process = None

    def freeze(self) -> None:
        """Pause the node's process: its connections stay open, but it answers nothing."""
        os.kill(self._server(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._server(), signal.SIGCONT)

    def _server(self) -> int:
        # The guard's children are the server and a shell that waits for the end of the guard's standard input.
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        (server,) = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "java"]
        return server

    def _configure(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        controllers = self._member.controllers
        self._configuration.write_text(
            CONFIGURATION.format(
                node=self._member.node,
                voters=",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items()),
                replication=len(controllers),
                broker=self._broker,
                controller=controllers[self._member.node],
                data=self._data.absolute(),
            )
        )

    def _format(self, prepared: Path) -> None:
        """Write the files that Kafka's tool writes into an empty storage, without its second of processor time."""
        self._data.mkdir()
        storage = STORAGE.format(cluster=self._member.cluster, node=self._member.node, directory=_random_id())
        (self._data / "meta.properties").write_text(storage)
        shutil.copyfile(prepared / _BOOTSTRAP, self._data / _BOOTSTRAP)

    def _run(self, jars: Path, *options: str) -> None:
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = [*_java(jars, *options), "kafka.Kafka", str(self._configuration)]
            self._process = start_guarded(command, log)
        self._await_started(offset)

    def _await_started(self, offset: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            log = self.log.read_bytes()[offset:]
            if b"Kafka Server started" in log:
                return
            if b"Exiting Kafka" in log or self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Kafka did not start; the end of {self.log}:\n{self.log.read_text()[-2000:]}")


class KafkaCluster:
    """Three nodes, each a broker and a controller."""

    def __init__(self, directory: Path) -> None:
        controllers = dict(zip((1, 2, 3), free_ports(3), strict=True))
        cluster = _random_id()
        self.nodes = [KafkaNode(directory / f"node-{n}", Member(n, controllers, cluster)) for n in controllers]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self) -> None:
        """Start all nodes concurrently: a node serves only when most of them are running."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            for started in [pool.submit(node.start) for node in self.nodes]:
                started.result()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


def _random_id() -> str:
    # The first byte is fixed, so that the id does not begin with a dash, which the tool would take for an option.
    return base64.urlsafe_b64encode(bytes([0x40]) + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()


def _java(jars: Path, *options: str) -> list[str]:
    log_times = "-Dorg.slf4j.simpleLogger.showDateTime=true"
    return ["java", "-Xms256m", "-Xmx1g", *_QUICK, *options, log_times, "-cp", f"{jars}/*"]


def _prepared(jars: Path) -> Path:
    """The directory, in the user's cache, of what every node needs; a node that runs once makes it.

    It has the initial metadata of a cluster and an archive of Kafka's classes as this Java loads them, with which a
    start takes 1.3 s of processor time instead of 2.3 s. Java ignores an archive of other classes or of another Java.
    """
    java = Path(str(shutil.which("java"))).resolve()
    made = hashlib.sha256(f"{jars} {java} {java.stat().st_mtime_ns} {_QUICK}".encode()).hexdigest()[:8]

    def make(fresh: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="flipback-kafka-") as directory:
            KafkaNode(Path(directory) / "node").prepare(jars, fresh)

    return kept(f"{jars.name}-prepared-{made}", make)


def _jars() -> Path:
    """The directory of the jars in the user's cache; Maven downloads them the first time."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise KafkaUnavailable(f"{' and '.join(missing)} not installed")
    pom = POM.read_bytes()
    version = ElementTree.fromstring(pom).findtext(".//{*}kafka.version")  # noqa: S314 - a file of our own
    command = ["mvn", "-q", "-B", "-f", str(POM.absolute()), "dependency:copy-dependencies"]
    try:
        return kept(
            f"kafka-{version}-{hashlib.sha256(pom).hexdigest()[:8]}",
            lambda fresh: bring([*command, f"-DoutputDirectory={fresh}"], fresh, "Kafka's jars"),
        )
    except NotBrought as error:
        raise KafkaUnavailable(str(error)) from error
