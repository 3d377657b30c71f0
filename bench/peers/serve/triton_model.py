"""The model.py of Triton's Python backend."""
import os
import sys

import triton_python_backend_utils as triton

sys.path.insert(0, os.environ["BENCH_SERVE"])
from engine import Engine  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        name = args["model_name"].split("-")[0]
        self.engine = Engine(name, os.environ["BENCH_MODELS"])
        self.output = "y" if name != "classifier" else self.engine.session.get_outputs()[0].name

    def execute(self, requests):
        return [triton.InferenceResponse([triton.Tensor(self.output, self.engine.run(
            triton.get_input_tensor_by_name(r, self.engine.input).as_numpy()))]) for r in requests]
