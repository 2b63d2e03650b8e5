"""The engines: what they need, installed once, and each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "clients")]

import build  # noqa: E402

ENGINES = ["pyiceberg", "duckdb", "polars", "datafusion", "spark", "trino"]
#: The ones that are there in seconds.
FAST = ENGINES[:4]
ICEBERG = "1.12.0"
SPARK_JARS = [f"iceberg-spark-runtime-4.1_2.13:{ICEBERG}", f"iceberg-aws-bundle:{ICEBERG}"]
TRINO = "476"


def maven(directory, artifact, to):
    subprocess.run(
        ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={to}"],
        cwd=directory,
        check=True,
    )


def jars(directory):
    for artifact in SPARK_JARS:
        maven(directory, f"org.apache.iceberg:{artifact}", directory)


def trino(directory):
    """The server with one plugin: it is large, and the others are not used."""
    name = f"trino-server-{TRINO}"
    maven(directory, f"io.trino:trino-server:{TRINO}:tar.gz", directory)
    wanted = (f"{name}/lib/", f"{name}/plugin/iceberg/")
    with tarfile.open(directory / f"{name}.tar.gz") as archive:
        for member in archive:
            if member.name.startswith(wanted):
                archive.extract(member, directory)
    (directory / f"{name}.tar.gz").unlink()


def prepare(engine):
    """The interpreter for an engine's query.py, and what its environment needs."""
    environment = {}
    requirements = HERE / engine / "requirements.txt"
    if not requirements.exists():
        return build.python("engines", HERE / "requirements.txt"), environment
    interpreter = build.python(f"engines-{engine}", requirements)
    if engine == "spark":
        directory = build.once("engines-spark-jars", [], jars, extra=",".join(SPARK_JARS))
        environment["SPARK_JARS"] = ",".join(str(jar) for jar in sorted(directory.glob("*.jar")))
        environment["ICEBERG_VERSION"] = ICEBERG
    if engine == "trino":
        directory = build.once("engines-trino-server", [], trino, extra=TRINO)
        environment["TRINO_HOME"] = str(directory / f"trino-server-{TRINO}")
    return interpreter, environment


class Cannot(Exception):
    pass


class Engine:
    """An engine in a process of its own, asked one question after another."""

    def __init__(self, name, broker):
        interpreter, environment = prepare(name)
        self.process = subprocess.Popen(
            [interpreter, HERE / name / "query.py", broker.catalog, json.dumps(broker.store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(broker.directory / f"{name}.log", "wb"),
            text=True,
            env=os.environ | environment | {"PYTHONPATH": str(HERE)},
        )
        self.log = broker.directory / f"{name}.log"
        self.version = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"it ended:\n{self.log.read_text(errors='replace')[-5000:]}")
        answer = json.loads(line)
        if "cannot" in answer:
            raise Cannot(answer["cannot"])
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["answer"]

    def ask(self, what, **options):
        self.process.stdin.write(json.dumps({"ask": what, **options}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
