"""Writes the small ONNX models of the engine conformance kit: make_onnx.py FOLDER

Protobuf by hand, so that the tests need nothing but Python itself. Field numbers are those of
onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

import os
import struct
import sys

FLOAT, INT64, STRING = 1, 7, 8


def varint(value):
    out = bytearray()
    while True:
        low = value & 0x7F
        value >>= 7
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, *parts):
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def text(field, value):
    return message(field, value.encode())


def port(field, name, element, dims):
    """A ValueInfoProto; a dim that is a string is free."""
    shape = b"".join(message(1, text(2, d) if isinstance(d, str) else number(1, d)) for d in dims)
    tensor_type = message(1, number(1, element), message(2, shape))
    return message(field, text(1, name), message(2, tensor_type))


def inputs(*ports):
    return b"".join(port(11, *p) for p in ports)


def outputs(*ports):
    return b"".join(port(12, *p) for p in ports)


def tensor(name, dims, values):
    raw = struct.pack(f"<{len(values)}f", *values)
    parts = [number(1, d) for d in dims]
    return message(5, *parts, number(2, FLOAT), text(8, name), message(9, raw))


def scalar(name, value):
    return tensor(name, [], [value])


def node(op, args, results, **attributes):
    parts = [text(1, a) for a in args] + [text(2, r) for r in results] + [text(4, op)]
    for key, value in attributes.items():
        parts.append(message(5, text(1, key), number(3, value), number(20, 2)))
    return message(1, *parts)


def model(*graph):
    opset = message(8, text(1, ""), number(2, 13))
    return number(1, 8) + text(2, "xinfer tests") + message(7, *graph, text(2, "g")) + opset


def affine(batch):
    return model(
        node("Mul", ["x", "two"], ["t"]),
        node("Add", ["t", "one"], ["y"]),
        scalar("two", 2.0),
        scalar("one", 1.0),
        inputs(("x", FLOAT, [batch, 4])),
        outputs(("y", FLOAT, [batch, 4])),
    )


MODELS = {
    "affine_dynamic": affine("n"),
    "affine_static": affine(1),
    "two": model(
        node("Sub", ["a", "b"], ["difference"]),
        node("Add", ["a", "b"], ["total"]),
        inputs(("a", FLOAT, [1, 4]), ("b", FLOAT, [1, 4])),
        outputs(("difference", FLOAT, [1, 4]), ("total", FLOAT, [1, 4])),
    ),
    "nonzero": model(
        node("NonZero", ["x"], ["y"]),
        inputs(("x", FLOAT, [2, 3])),
        outputs(("y", INT64, [2, "n"])),
    ),
    "identity_i64": model(
        node("Identity", ["x"], ["y"]),
        inputs(("x", INT64, [2, 3])),
        outputs(("y", INT64, [2, 3])),
    ),
    "scalar": model(
        node("ReduceSum", ["x"], ["y"], keepdims=0),
        inputs(("x", FLOAT, [4])),
        outputs(("y", FLOAT, [])),
    ),
    # From here: for single engines only.
    "strings": model(
        node("Identity", ["x"], ["y"]),
        inputs(("x", STRING, [2])),
        outputs(("y", STRING, [2])),
    ),
    "rank9": model(
        node("Relu", ["x"], ["y"]),
        inputs(("x", FLOAT, [1] * 9)),
        outputs(("y", FLOAT, [1] * 9)),
    ),
    "matmul": model(
        node("MatMul", ["x", "w"], ["y"]),
        tensor("w", [32, 32], [1.0 + i % 7 / 1024 for i in range(32 * 32)]),
        inputs(("x", FLOAT, [4, 32])),
        outputs(("y", FLOAT, [4, 32])),
    ),
}


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name, data in MODELS.items():
        with open(os.path.join(folder, name + ".onnx"), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()
