"""Models made for the benchmarks: real work for a real engine, and an output that says which it was."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "tools"))

from make_onnx import FLOAT, INT64, inputs, message, model, node, number, outputs, tensor, text  # noqa: E402

UINT8 = 2


def pattern(name, dims):
    """A constant of small numbers that no engine can fold away."""
    n = 1
    for d in dims:
        n *= d
    period = struct.pack("<1021f", *[((i * 37) % 1021 - 510) / 51000 for i in range(1021)])
    raw = (period * (n // 1021 + 1))[:4 * n]
    return message(5, *[number(1, d) for d in dims], number(2, FLOAT), text(8, name), message(9, raw))


def whole_numbers(name, values):
    raw = struct.pack("<%dq" % len(values), *values)
    return message(5, number(1, len(values)), number(2, INT64), text(8, name), message(9, raw))


def identity(width):
    return model(node("Identity", ["x"], ["y"]), inputs(("x", FLOAT, [1, width])),
                 outputs(("y", FLOAT, [1, width])))


def brightness(height, width, step):
    """The mean of every step-th pixel of every step-th line of a frame: an engine that looks at a
    frame without reading all of it, so that what moves the frame is what costs."""
    return model(node("Slice", ["x", "from", "to", "axes", "steps"], ["some"]),
                 whole_numbers("from", [0, 0]), whole_numbers("to", [height, width]),
                 whole_numbers("axes", [1, 2]), whole_numbers("steps", [step, step]),
                 node("Cast", ["some"], ["real"], to=FLOAT),
                 node("ReduceMean", ["real"], ["y"], keepdims=1),
                 inputs(("x", UINT8, [1, height, width, 3])), outputs(("y", FLOAT, [1, 1, 1, 1])))


def brightest(height, width):
    """The largest of all samples of a frame: an engine that reads it all and does next to nothing."""
    return model(node("ReduceMax", ["x"], ["y"], keepdims=1),
                 inputs(("x", UINT8, [1, height, width, 3])), outputs(("y", UINT8, [1, 1, 1, 1])))


def network(width, depth, rows, mark, batch=None):
    """x [1,width] (or [batch,1,width]) is spread over `rows` rows, which go through `depth` square
    layers; y [rows,4] ends in `mark` four times, so an answer shows which network gave it."""
    lead = [] if batch is None else [batch]
    graph, at = [node("Add", ["x", "spread"], ["r"]), pattern("spread", [rows, width])], "r"
    for i in range(depth):
        graph += [node("MatMul", [at, "w%d" % i], ["m%d" % i]), node("Tanh", ["m%d" % i], ["t%d" % i]),
                  pattern("w%d" % i, [width, width])]
        at = "t%d" % i
    # The mark is added to what the network says, scaled to nothing.
    graph += [node("MatMul", [at, "last"], ["four"]), pattern("last", [width, 4]),
              node("Mul", ["four", "tiny"], ["small"]), tensor("tiny", [], [1e-30]),
              node("Add", ["small", "mark"], ["y"]), tensor("mark", [], [mark])]
    return model(*graph, inputs(("x", FLOAT, lead + [1, width])), outputs(("y", FLOAT, lead + [rows, 4])))


def marked(mark):
    """How a raw answer of such a network ends, as bench/load's --expect takes it."""
    return struct.pack("<4f", *[mark] * 4).hex()
