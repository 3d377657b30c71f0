"""How a model is asked: the bodies that the load generator sends, each checked once before it is timed.

A door is a protocol with an encoding. The Open Inference Protocol's doors are the same bytes for
every server that speaks it; a Server with an interface of its own makes its own bodies.
"""
import json
import mmap
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                                "tests", "tools"))
from make_onnx import message, number, text, varint  # noqa: E402

DOORS = {"json": "HTTP, JSON", "binary": "HTTP, binary", "grpc": "gRPC", "grpc-one": "gRPC on one connection",
         "memory": "HTTP, named shared memory",
         "memory-grpc": "gRPC, named shared memory"}
GRPC = "/inference.GRPCInferenceService/ModelInfer"
CODES = {"FP32": ("f", 4), "UINT8": ("B", 1)}


class Model:
    """A model with one input and one output, and what is sent to it."""

    def __init__(self, name, title, dtype, shape, output, out_shape):
        self.name, self.title, self.dtype, self.shape = name, title, dtype, shape
        self.output, self.out_shape = output, out_shape
        n = 1
        for d in shape:
            n *= d
        code, size = CODES[dtype]
        period = [i % 251 for i in range(251)] if dtype == "UINT8" else [(i % 251) / 64 for i in range(251)]
        self.tensor = (struct.pack("<251" + code, *period) * (n // 251 + 1))[:n * size]
        self.values = (period * (n // 251 + 1))[:n] if n <= 1 << 16 else None
        self.right = None  # what the engine alone says: floats

    @property
    def out_bytes(self):
        return 4 * self.count_out()

    def count_out(self):
        n = 1
        for d in self.out_shape:
            n *= d
        return n


CLASSIFIER_OUTPUT = "save_infer_model/scale_0.tmp_1"


def models():
    return {m.name: m for m in (
        Model("identity", "identity, 1 KB", "FP32", [1, 256], "y", [1, 256]),
        Model("classifier", "text-direction classifier", "FP32", [1, 3, 48, 192], CLASSIFIER_OUTPUT, [1, 2]),
        Model("frame", "4K frame", "UINT8", [1, 2160, 3840, 3], "y", [1, 1, 1, 1]))}


class Region:
    """Memory of ours in /dev/shm, the input at its start and room for the output behind."""

    def __init__(self, model, owner):
        self.name = "xinfer-bench-%d-%s-%s" % (os.getpid(), owner, model.name)
        self.input_bytes, self.output_bytes = len(model.tensor), model.out_bytes
        self.output_at = (self.input_bytes + 4095) // 4096 * 4096
        self.bytes = self.output_at + 4096
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(fd, 0o666)
        os.ftruncate(fd, self.bytes)
        self.map = mmap.mmap(fd, self.bytes)
        os.close(fd)
        self.map[:self.input_bytes] = model.tensor

    @property
    def path(self):
        return "/dev/shm/" + self.name

    def output(self):
        return self.map[self.output_at:self.output_at + self.output_bytes]

    def wipe(self):
        self.map[self.output_at:self.output_at + self.output_bytes] = b"\xff" * self.output_bytes

    def close(self):
        self.map.close()
        os.unlink(self.path)


class Ask:
    """What bench/load is given for one cell."""

    def __init__(self, to, path, body, headers=(), protocol="http1", read=None):
        self.to, self.path, self.body, self.headers = to, path, body, list(headers)
        self.protocol, self.read = protocol, read  # read(answer) -> floats

    def arguments(self, folder, name):
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(self.body)
        return (self.to, self.path, path, self.headers), {"protocol": self.protocol}


def floats(data, count):
    return list(struct.unpack("<%df" % count, data[len(data) - 4 * count:]))


def oip_json(model):
    return json.dumps({"inputs": [{"name": "x", "shape": model.shape, "datatype": model.dtype,
                                   "data": model.values}]}).encode()


def oip_binary(model):
    head = json.dumps({"inputs": [{"name": "x", "shape": model.shape, "datatype": model.dtype,
                                   "parameters": {"binary_data_size": len(model.tensor)}}],
                       "outputs": [{"name": model.output, "parameters": {"binary_data": True}}]}).encode()
    return head + model.tensor, "Inference-Header-Content-Length: %d" % len(head)


def oip_memory(model, region):
    def where(size, offset):
        return {"shared_memory_region": region.name, "shared_memory_byte_size": size,
                "shared_memory_offset": offset}
    return json.dumps({
        "inputs": [{"name": "x", "shape": model.shape, "datatype": model.dtype,
                    "parameters": where(region.input_bytes, 0)}],
        "outputs": [{"name": model.output, "parameters": where(region.output_bytes, region.output_at)}]}).encode()


def packed(field, values):
    return message(field, b"".join(varint(v) for v in values))


def parameter(field, key, value):
    """An entry of map<string, InferParameter>."""
    chosen = text(3, value) if isinstance(value, str) else number(2, value)
    return message(field, text(1, key), message(2, chosen))


def tensor_head(model):
    return text(1, "x") + text(2, model.dtype) + packed(3, model.shape)


def oip_grpc(model, name):
    return (text(1, name) + message(5, tensor_head(model)) + message(6, text(1, model.output)) +
            message(7, model.tensor))


def oip_grpc_memory(model, name, region):
    def where(field, size, offset):
        return (parameter(field, "shared_memory_region", region.name) +
                parameter(field, "shared_memory_byte_size", size) +
                parameter(field, "shared_memory_offset", offset))
    return (text(1, name) + message(5, tensor_head(model), where(4, region.input_bytes, 0)) +
            message(6, text(1, model.output), where(2, region.output_bytes, region.output_at)))


def field_of(data, wanted):
    """The last length-delimited field of that number in a protobuf message."""
    def varint_at(i):
        value = shift = 0
        while True:
            value |= (data[i] & 0x7F) << shift
            shift, i = shift + 7, i + 1
            if not data[i - 1] & 0x80:
                return value, i
    at, found = 0, None
    while at < len(data):
        key, at = varint_at(at)
        if key & 7 == 0:
            _, at = varint_at(at)
            continue
        size, at = varint_at(at)
        if key >> 3 == wanted:
            found = data[at:at + size]
        at += size
    return found


def read_grpc(model):
    def read(answer):
        raw = field_of(answer, 6)
        if raw is None:  # typed contents: outputs -> contents -> fp32_contents
            raw = field_of(field_of(field_of(answer, 5), 5), 6)
        return floats(raw, model.count_out())
    return read


def oip(model, door, name, http, grpc, region):
    """The Ask of an Open Inference Protocol door."""
    path = "/v2/models/%s/infer" % name
    as_json = ["Content-Type: application/json"]
    if door == "json":
        return Ask(http, path, oip_json(model), as_json,
                   read=lambda a: json.loads(a)["outputs"][0]["data"])
    if door == "binary":
        body, head = oip_binary(model)
        return Ask(http, path, body, ["Content-Type: application/octet-stream", head],
                   read=lambda a: floats(a, model.count_out()))
    if door in ("grpc", "grpc-one"):
        return Ask(grpc, GRPC, oip_grpc(model, name), protocol="grpc", read=read_grpc(model))
    region.wipe()
    read = lambda _: floats(region.output(), model.count_out())  # noqa: E731
    if door == "memory":
        return Ask(http, path, oip_memory(model, region), as_json, read=read)
    return Ask(grpc, GRPC, oip_grpc_memory(model, name, region), protocol="grpc", read=read)
