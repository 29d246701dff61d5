"""How each runtime's packages come under the target folder, pinned by files that stand beside the suites.

Every function is idempotent: a stamp holds a hash of the pinning files, and nothing is done while it fits.
A missing runtime raises `MissingRuntime`; a failed installation raises `InstallError`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

# One installation may take this long, downloads included.
INSTALL_TIMEOUT_S = 300

_apt_lock = threading.Lock()


class MissingRuntime(Exception):
    """A program that the suite's language needs is not on this machine."""


class InstallError(Exception):
    """A package manager refused or failed."""


def need(*programs: str) -> None:
    """Raises `MissingRuntime` naming the first program that is not on the path."""
    for program in programs:
        if shutil.which(program) is None:
            raise MissingRuntime(program)


def run_step(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Runs one installation step; returns its output, or raises `InstallError` with the tail of it."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_TIMEOUT_S, check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{command[0]} took more than {INSTALL_TIMEOUT_S} s") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join(output.splitlines()[-20:])
        raise InstallError(f"`{' '.join(command)}` ended with status {done.returncode}:\n{tail}")
    return output


class Stamp:
    """Remembers in `folder` which contents of the pinning files it was prepared from."""

    def __init__(self, folder: Path, *sources: Path):
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        for source in sources:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        self._file = folder / ".prepared"
        self._want = digest.hexdigest()

    def fits(self) -> bool:
        """Whether nothing needs doing."""
        return self._file.exists() and self._file.read_text() == self._want

    def write(self) -> None:
        """To be called once everything is in place."""
        self._file.write_text(self._want)


def python_packages(folder: Path, requirements: Path) -> Path:
    """A virtual environment with the pinned requirements; returns its interpreter."""
    stamp = Stamp(folder, requirements)
    interpreter = folder / "venv" / "bin" / "python"
    if not (stamp.fits() and interpreter.exists()):
        run_step([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], folder)
        run_step([str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(requirements)], folder)
        stamp.write()
    return interpreter


def node_packages(folder: Path, source: Path) -> Path:
    """The pinned npm packages of `source`, with its scripts beside them; returns the `node` to run them by.

    The clients need a newer Node.js than many distributions carry; where the one on the path is too old,
    the one that npm itself ships as a package is used.
    """
    need("node", "npm")
    manifests = [source / "package.json", source / "package-lock.json"]
    stamp = Stamp(folder, *manifests)
    if not stamp.fits():
        for manifest in manifests:
            shutil.copy(manifest, folder)
        run_step(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder)
        stamp.write()
    return _node(folder)


NODE_LEAST = (22, 22)
NODE_PACKAGED = "24.9.0"


def _node(folder: Path) -> Path:
    """A Node.js of at least `NODE_LEAST`."""
    own = Path(shutil.which("node") or "")
    version = run_step([str(own), "--version"], folder).strip()
    found = re.match(r"v(\d+)\.(\d+)\.", version)
    if found and (int(found[1]), int(found[2])) >= NODE_LEAST:
        return own
    architecture = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if architecture is None or sys.platform != "linux":
        raise MissingRuntime(f"node {'.'.join(map(str, NODE_LEAST))} or newer (found {version})")
    package = f"node-linux-{architecture}"
    place = folder.parent / "node"
    binary = place / "node_modules" / package / "bin" / "node"
    with _node_lock:
        if not binary.exists():
            place.mkdir(parents=True, exist_ok=True)
            run_step(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error",
                      "--prefix", str(place), f"{package}@{NODE_PACKAGED}"], place)
    return binary


_node_lock = threading.Lock()


def go_program(folder: Path, source: Path) -> Path:
    """The suite's Go program, built from `source` with the modules its go.sum pins."""
    need("go")
    binary = folder / "suite"
    stamp = Stamp(folder, *sorted(source.glob("*.go")), source / "go.mod", source / "go.sum")
    if not (stamp.fits() and binary.exists()):
        run_step(["go", "build", "-mod=readonly", "-o", str(binary), "."], source, {"CGO_ENABLED": "0"})
        stamp.write()
    return binary


def maven_jars(folder: Path, pom: Path) -> Path:
    """The jars that a pom pins and all they need; returns the folder of jars."""
    need("java", "mvn")
    stamp = Stamp(folder, pom)
    libs = folder / "libs"
    if not stamp.fits():
        shutil.rmtree(libs, ignore_errors=True)
        shutil.copy(pom, folder / "pom.xml")
        run_step(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={libs}"], folder)
        stamp.write()
    return libs


def java_classes(folder: Path, libs: Path, sources: list[Path]) -> Path:
    """The suite's Java sources compiled against the jars; returns the folder of classes."""
    need("javac")
    stamp = Stamp(folder, *sources)
    classes = folder / "classes"
    if not stamp.fits():
        shutil.rmtree(classes, ignore_errors=True)
        run_step(["javac", "-nowarn", "-proc:none", "-cp", f"{libs}/*", "-d", str(classes),
                  *map(str, sources)], folder)
        stamp.write()
    return classes


def debian_package(program: str, package: str) -> Path:
    """The path of a program that Debian packages; installs the package where that is possible."""
    with _apt_lock:
        if shutil.which(program) is None:
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                raise MissingRuntime(f"{program} (apt-get install {package})")
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            run_step(["apt-get", "update", "-q"], Path("/"), environment)
            run_step(["apt-get", "install", "-y", "-q", package], Path("/"), environment)
    need(program)
    return Path(shutil.which(program) or "")
