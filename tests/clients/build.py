"""Installs and builds what the drivers and rigs need, once for each set of inputs.

Everything goes into one directory outside the sources: target/clients, or
$CLIENT_DRIVERS_DIR. A `.built` file in each part holds a digest of the inputs it
was built from; other inputs mean building again from nothing.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

CLIENTS = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(
    os.environ.get("CLIENT_DRIVERS_DIR", CLIENTS.parent.parent / "target" / "clients")
).resolve()


def call(command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def once(name, inputs, build, extra=""):
    """The directory `name`, filled by `build(directory)` unless it already was."""
    digest = hashlib.sha256(extra.encode())
    for file in inputs:
        digest.update(file.read_bytes())
    directory = BUILD / name
    stamp = directory / ".built"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return directory
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    build(directory)
    stamp.write_text(digest.hexdigest())
    return directory


def python(name, requirements):
    """The interpreter of a virtual environment with these requirements."""

    def build(directory):
        call([sys.executable, "-m", "venv", directory])
        call([directory / "bin" / "pip", "install", "--quiet", "--requirement", requirements])

    return once(name, [requirements], build) / "bin" / "python"


def go(source):
    """The program built from the Go module in `source`."""
    files = [source / name for name in ("go.mod", "go.sum", "main.go")]
    build = lambda directory: call(["go", "build", "-o", directory / source.name, "."], cwd=source)
    return once(source.name, files, build) / source.name


def node(source):
    """The directory where the driver in `source` finds its modules."""
    packages = [source / "package.json", source / "package-lock.json"]

    def build(directory):
        for file in packages:
            shutil.copy(file, directory)
        call(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=directory)

    return once(source.name, packages, build)


def java(source, version):
    """The class path of a Java driver, with Kafka's libraries of `version` or as pinned."""
    settings = [f"-Dkafka.version={version}"] if version else []

    def build(directory):
        call(
            ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", source / "pom.xml", f"-Dout={directory}", *settings]
            + ["compile", "dependency:copy-dependencies", f"-DoutputDirectory={directory}/lib"]
        )

    files = [source / "pom.xml", *sorted(source.glob("src/**/*.java"))]
    directory = once(f"{source.name}-{version or 'newest'}", files, build, extra=str(version))
    return f"{directory}/classes:{directory}/lib/*"
