"""The table of suites: what each needs on the machine, how it is prepared and which command runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import packages
from .broker import KAFKA_VERSION

HERE = Path(__file__).resolve().parent.parent
SUITES = HERE / "suites"


@dataclass(frozen=True)
class Prepared:
    """A suite ready to run: its command and what its environment gets on top."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Suite:
    """One client family. `prepare` gets the suite's folder under the target."""

    name: str
    about: str
    prepare: Callable[[Path], Prepared]
    # The whole run, without installation, may take this long.
    timeout_s: float = 240.0
    # What its broker gets beyond the common settings.
    settings: dict[str, str] = field(default_factory=dict)


def _python(name: str) -> Callable[[Path], Prepared]:
    def prepare(folder: Path) -> Prepared:
        source = SUITES / name
        interpreter = packages.python_packages(folder, source / "requirements.txt")
        paths = {"PYTHONPATH": str(HERE / "lib" / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
        return Prepared([str(interpreter), "-u", str(source / "suite.py")], paths)

    return prepare


def _kcat(folder: Path) -> Prepared:
    packages.debian_package("kcat", "kcat")
    packages.need("python3")
    paths = {"PYTHONPATH": str(HERE / "lib" / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    return Prepared(["python3", "-u", str(SUITES / "kcat" / "suite.py")], paths)


def _cli(folder: Path) -> Prepared:
    binary = os.environ.get("VLTAVA", "")
    if not Path(binary).exists():
        raise packages.MissingRuntime(f"the vltava binary ({binary})")
    packages.need("python3")
    paths = {"PYTHONPATH": str(HERE / "lib" / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    return Prepared(["python3", "-u", str(SUITES / "cli" / "suite.py")], paths)


def _cat(folder: Path) -> Prepared:
    """The cases of kcat, with a kcat in the path that is our own."""
    prepared = _cli(folder)
    stand_in = folder / "kcat"
    stand_in.write_text('#!/bin/sh\nexec "$VLTAVA" cat "$@"\n')
    stand_in.chmod(0o755)
    paths = {**prepared.environment, "PATH": f"{folder}:{os.environ['PATH']}", "STAND_IN": "1"}
    return Prepared(["python3", "-u", str(SUITES / "kcat" / "suite.py")], paths)


def _node(name: str) -> Callable[[Path], Prepared]:
    def prepare(folder: Path) -> Prepared:
        source = SUITES / name
        node = packages.node_packages(folder, source)
        # Node.js resolves packages from the folder of the script, hence the copies.
        for script in [source / "suite.mjs", *sorted((HERE / "lib" / "node").glob("*.mjs"))]:
            (folder / script.name).write_bytes(script.read_bytes())
        return Prepared([str(node), "--no-warnings", str(folder / "suite.mjs")], {})

    return prepare


def _go(name: str) -> Callable[[Path], Prepared]:
    def prepare(folder: Path) -> Prepared:
        return Prepared([str(packages.go_program(folder, SUITES / name))], {})

    return prepare


def _java(name: str) -> Callable[[Path], Prepared]:
    def prepare(folder: Path) -> Prepared:
        source = SUITES / name
        libs = packages.maven_jars(folder, source / "pom.xml")
        # Both releases run the same client cases; their tools differ, and stand in a file of each suite.
        shared = sorted((HERE / "lib" / "java").glob("*.java"))
        classes = packages.java_classes(folder / "build", libs, [*shared, *sorted(source.glob("*.java"))])
        classpath = f"{classes}:{HERE / 'lib' / 'java'}:{libs}/*"
        return Prepared(["java", *JVM_FLAGS, "-cp", classpath, "Suite"], {"CLASSPATH_OF_SUITE": classpath})

    return prepare


# Short-lived JVMs: the first compiler tier only, and a heap that lets several run side by side.
JVM_FLAGS = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


def kafka_broker_jars(target: Path) -> Path:
    """The jars of the oracle, under `target`."""
    return packages.maven_jars(target / f"kafka-{KAFKA_VERSION}", SUITES / "java" / "pom.xml")


# The slow ones first, so that two lanes end together.
ALL = [
    Suite("java", "Java client and Kafka's own tools, 4.x", _java("java"), timeout_s=420),
    Suite("java-2.8", "Java client and Kafka's own tools, 2.8", _java("java-2.8"), timeout_s=420),
    Suite("confluent", "confluent-kafka (librdkafka)", _python("confluent")),
    Suite("franz-go", "franz-go with kadm", _go("franz-go")),
    Suite("kafka-python", "kafka-python", _python("kafka-python")),
    Suite("aiokafka", "aiokafka", _python("aiokafka")),
    Suite("kafkajs", "kafkajs", _node("kafkajs")),
    Suite("platformatic", "@platformatic/kafka", _node("platformatic")),
    # kcat cannot create topics: those it creates by producing need several partitions for the group cases.
    Suite("kcat", "kcat as Debian packages it (old librdkafka)", _kcat, settings={"num.partitions": "4"}),
    Suite("cli", "the tools of vltava itself", _cli, settings={"log.retention.check.interval.ms": "200"}),
    Suite("cat", "vltava cat in the place of kcat", _cat, settings={"num.partitions": "4"}),
]
