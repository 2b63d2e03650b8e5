"""Stands in for the suite's own `test/service.py`, which its distribution lacks.

The suite starts brokers through it; here the broker always runs already.
"""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    def __init__(self, *_arguments, **_options):
        raise RuntimeError("this run uses a broker that exists")
