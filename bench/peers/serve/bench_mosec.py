"""bench_mosec.py MODEL --port N …: JSON {"data": [...]} or raw bytes in, the same out."""
import json
import os
import sys

import mosec
import numpy

from engine import Engine

MODEL = os.environ["BENCH_MODEL"]


class Runner(mosec.Worker):
    def __init__(self):
        super().__init__()
        self.engine = Engine(MODEL, os.environ["BENCH_MODELS"])

    def deserialize(self, data):
        self.as_json = data[:1] == b"{" and len(data) != 1024
        if self.as_json:
            return numpy.array(json.loads(data)["data"], self.engine.dtype).reshape(self.engine.shape)
        return self.engine.from_bytes(data)

    def forward(self, x):
        return self.engine.run(x)

    def serialize(self, y):
        return json.dumps({"data": y.ravel().tolist()}).encode() if self.as_json else y.tobytes()


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Runner, num=int(os.environ["BENCH_WORKERS"]))
    server.run()
