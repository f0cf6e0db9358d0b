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
# than they save. Without them a start takes 2.6 s of processor time instead of 4.6 s.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
START_TIMEOUT = 120.0  # seconds; 3 s on a quiet machine with two cores

CONFIGURATION = """\
process.roles=broker,controller
node.id={node}
{quorum}
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
        self._member = member
        (self._broker,) = free_ports(1)
        self._controller = free_ports(1)[0] if member is None else member.controllers[member.node]
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
        configuration = self.directory / "server.properties"
        data = self.directory / "data"
        if not data.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            configuration.write_text(
                CONFIGURATION.format(
                    node=1 if self._member is None else self._member.node,
                    quorum=self._quorum(),
                    replication=1 if self._member is None else len(self._member.controllers),
                    broker=self._broker,
                    controller=self._controller,
                    data=data.absolute(),
                )
            )
            self._format(jars, configuration)
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = start_guarded([*_java(jars), "kafka.Kafka", str(configuration)], log)
        self._await_started(offset)

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

    def _quorum(self) -> str:
        if self._member is None:
            return f"controller.quorum.bootstrap.servers=127.0.0.1:{self._controller}"
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in self._member.controllers.items())
        return f"controller.quorum.voters={voters}"

    def _format(self, jars: Path, configuration: Path) -> None:
        tool = [*_java(jars), "kafka.tools.StorageTool", "format", "-c", str(configuration)]
        alone = ["--standalone", "-t", _cluster_id()]
        done = subprocess.run(
            [*tool, *(alone if self._member is None else ["-t", self._member.cluster])],
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
        cluster = _cluster_id()
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


def _cluster_id() -> str:
    # The first byte is fixed, so that the id does not begin with a dash, which the tool would take for an option.
    return base64.urlsafe_b64encode(bytes([0x40]) + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()


def _java(jars: Path) -> list[str]:
    return ["java", "-Xms256m", "-Xmx1g", *_QUICK, "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", f"{jars}/*"]


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
