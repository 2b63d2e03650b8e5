"""A broker that a rig runs: started by a shell command, killed, started again."""

import os
import signal
import socket
import subprocess
import tempfile
import time


class Broker:
    """The broker, when this rig runs it; it and nothing else is ended here."""

    def __init__(self, command, bootstrap):
        self.command = command
        host, port = bootstrap.rsplit(":", 1)
        self.address = (host, int(port))
        self.process = None

    def start(self):
        log = open(f"{tempfile.gettempdir()}/rig-broker-{os.getpid()}.log", "ab")
        self.process = subprocess.Popen(
            self.command, shell=True, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not self.listens():
            if self.process.poll() is not None:
                raise SystemExit(f"the broker ended with {self.process.returncode}, see {log.name}")
            if time.monotonic() > deadline:
                raise SystemExit(f"the broker does not listen after 120 s, see {log.name}")
            time.sleep(0.1)

    def group_lives(self):
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def listens(self):
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True

    def end(self, number):
        # The whole group: the command may be a shell with the broker below it.
        os.killpg(self.process.pid, number)
        deadline = time.monotonic() + 60
        # The shell may be gone before the broker, which may stop listening before it ends.
        while self.process.poll() is None or self.group_lives():
            if time.monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                return False
            time.sleep(0.05)
        return True
