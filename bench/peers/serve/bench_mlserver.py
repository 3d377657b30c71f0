"""The runtime that MLServer serves: numpy in, numpy out, by its own codec."""
import os

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

from engine import Engine


class Runtime(MLModel):
    async def load(self):
        self.engine = Engine(self.name, os.environ["BENCH_MODELS"])
        return True

    async def predict(self, payload):
        y = self.engine.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
