"""bench_litserve.py MODEL PORT WORKERS SERVERS: {"data": [...]} or {"base64": "..."} in, {"data": [...]} out."""
import base64
import os
import sys

import litserve
import numpy

from engine import Engine


class Api(litserve.LitAPI):
    def setup(self, device):
        self.engine = Engine(sys.argv[1], os.environ["BENCH_MODELS"])

    def decode_request(self, request):
        if "base64" in request:
            return self.engine.from_bytes(base64.b64decode(request["base64"]))
        return numpy.array(request["data"], self.engine.dtype).reshape(self.engine.shape)

    def predict(self, x):
        return self.engine.run(x)

    def encode_response(self, y):
        return {"data": y.ravel().tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=int(sys.argv[3]),
                                fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=int(sys.argv[4]),
               generate_client_file=False, log_level="error", access_log=False)
