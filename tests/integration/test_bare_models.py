"""Bare models, without a package around them: load by their file, asked in plain tensors, f32.

What they must answer is arithmetic, done here by NumPy.
"""
import importlib.util
import json
import os
import struct

import numpy
import pytest

from daemon import ROOT, Daemon

pytestmark = pytest.mark.release

TFLITE = os.path.join(ROOT, "build", "deps", "zoo", "object-detector", "model.tflite")


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, "tests/tools", name + ".py"))
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


make_onnx = load_tool("make_onnx")


@pytest.fixture(scope="module")
def server():
    d = Daemon()
    try:
        yield d.start()
    finally:
        d.close()


def load(server, path, *args):
    said = server.cli("load", path, "--json", *args)
    assert said.rc == 0, said
    return said.json()


def infer(server, name, **tensors):
    """JSON there, JSON back, by the command: {output: array}."""
    request = {"inputs": [{"name": n, "datatype": {"float32": "FP32", "int64": "INT64"}[str(t.dtype)],
                           "shape": list(t.shape), "data": t.ravel().tolist()}
                          for n, t in tensors.items()]}
    said = server.cli("infer", name, "-", "--json", stdin=json.dumps(request))
    assert said.rc == 0, said
    return {o["name"]: numpy.array(o["data"]).reshape(o["shape"]) for o in said.json()["outputs"]}


def f32(*values):
    return numpy.array(values, dtype=numpy.float32)


@pytest.fixture
def onnx(tmp_path):
    def write(name):
        path = tmp_path / (name + ".onnx")
        path.write_bytes(make_onnx.MODELS[name])
        return str(path)
    return write


def test_onnx_of_any_batch(server, onnx):
    got = load(server, onnx("affine_dynamic"))
    assert got["name"] == "affine_dynamic" and got["engine"].startswith("openvino ")
    for batch in (1, 3):
        x = numpy.arange(batch * 4, dtype=numpy.float32).reshape(batch, 4) / 7
        y = infer(server, "affine_dynamic", x=x)["y"]
        assert y.shape == (batch, 4) and numpy.abs(y - (2 * x + 1)).max() <= 1e-6


def test_onnx_with_two_inputs_and_outputs(server, onnx):
    load(server, onnx("two"))
    a, b = f32([1, 2, 3, 4]), f32([0.5, -2, 1e6, 0])
    got = infer(server, "two", b=b, a=a)
    assert (got["difference"] == a - b).all() and (got["total"] == a + b).all()


def test_onnx_is_computed_in_f32(server, onnx):
    """Sums that bf16 (8 bits) or f16 (11 bits) would get wrong in the third digit."""
    load(server, onnx("matmul"))
    w = numpy.array([1.0 + i % 7 / 1024 for i in range(32 * 32)], dtype=numpy.float32).reshape(32, 32)
    x = numpy.random.default_rng(1).random((4, 32), dtype=numpy.float32)
    exact = x.astype(numpy.float64) @ w.astype(numpy.float64)
    assert numpy.abs(infer(server, "matmul", x=x)["y"] / exact - 1).max() < 2e-6


def test_onnx_with_int64_and_unknown_output_shape(server, onnx):
    load(server, onnx("identity_i64"))
    x = numpy.array([[1, -2, 3], [2 ** 31 - 1, 0, -2 ** 31]], dtype=numpy.int64)
    assert (infer(server, "identity_i64", x=x)["y"] == x).all()
    load(server, onnx("nonzero"))
    x = f32([0, 1, 0], [2, 0, 3])
    assert infer(server, "nonzero", x=x)["y"].tolist() == [list(i) for i in numpy.nonzero(x)]


def test_onnx_that_keeps_its_weights_beside_it(server, tmp_path):
    """External data goes into the package with the model."""
    m = make_onnx
    def entry(key, value):
        return m.message(13, m.text(1, key), m.text(2, value))
    weights = m.message(5, m.number(1, 4), m.number(2, m.FLOAT), m.text(8, "w"),
                        entry("location", "w.bin"), entry("offset", "0"), entry("length", "16"),
                        m.number(14, 1))
    (tmp_path / "scaled.onnx").write_bytes(m.model(
        m.node("Mul", ["x", "w"], ["y"]), weights, m.inputs(("x", m.FLOAT, [1, 4])),
        m.outputs(("y", m.FLOAT, [1, 4]))))
    (tmp_path / "w.bin").write_bytes(struct.pack("<4f", 1, 10, 100, 1000))
    load(server, tmp_path / "scaled.onnx")
    assert infer(server, "scaled", x=f32([1, 2, 3, 4]))["y"].tolist() == [[1, 20, 300, 4000]]


IR = """<?xml version="1.0"?>
<net name="line" version="11">
 <layers>
  <layer id="0" name="x" type="Parameter" version="opset1">
   <data shape="1,4" element_type="f32"/>
   <output><port id="0" precision="FP32" names="x"><dim>1</dim><dim>4</dim></port></output>
  </layer>
  <layer id="1" name="two" type="Const" version="opset1">
   <data element_type="f32" shape="1,1" offset="0" size="4"/>
   <output><port id="0" precision="FP32"><dim>1</dim><dim>1</dim></port></output>
  </layer>
  <layer id="2" name="t" type="Multiply" version="opset1">
   <data auto_broadcast="numpy"/>
   <input><port id="0"><dim>1</dim><dim>4</dim></port><port id="1"><dim>1</dim><dim>1</dim></port></input>
   <output><port id="2" precision="FP32"><dim>1</dim><dim>4</dim></port></output>
  </layer>
  <layer id="3" name="one" type="Const" version="opset1">
   <data element_type="f32" shape="1,1" offset="4" size="4"/>
   <output><port id="0" precision="FP32"><dim>1</dim><dim>1</dim></port></output>
  </layer>
  <layer id="4" name="y" type="Add" version="opset1">
   <data auto_broadcast="numpy"/>
   <input><port id="0"><dim>1</dim><dim>4</dim></port><port id="1"><dim>1</dim><dim>1</dim></port></input>
   <output><port id="2" precision="FP32" names="y"><dim>1</dim><dim>4</dim></port></output>
  </layer>
  <layer id="5" name="y/sink" type="Result" version="opset1">
   <input><port id="0"><dim>1</dim><dim>4</dim></port></input>
  </layer>
 </layers>
 <edges>
  <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
  <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
  <edge from-layer="2" from-port="2" to-layer="4" to-port="0"/>
  <edge from-layer="3" from-port="0" to-layer="4" to-port="1"/>
  <edge from-layer="4" from-port="2" to-layer="5" to-port="0"/>
 </edges>
</net>
"""


def test_openvino_ir(server, tmp_path):
    (tmp_path / "line.xml").write_text(IR)
    (tmp_path / "line.bin").write_bytes(struct.pack("<2f", 2, 1))
    load(server, tmp_path / "line.xml")
    x = f32([0, 1, -2.5, 1e-3])
    assert numpy.abs(infer(server, "line", x=x)["y"] - (2 * x + 1)).max() <= 1e-6
    raw = tmp_path / "x.bin"
    raw.write_bytes(x.tobytes())
    said = server.cli("infer", "line", raw, "--shape", "1,4")
    assert said.rc == 0 and said.stdout == "y  FP32 [1,4]  [1, 3, -4, 1.002]\n", said


def test_openvino_ir_without_its_weights(server, tmp_path):
    (tmp_path / "alone.xml").write_text(IR)
    said = server.cli("load", tmp_path / "alone.xml", "--json")
    assert said.rc != 0 and "alone.bin" in json.loads(said.stderr)["detail"], said


def test_tflite(server):
    """The detector's own network: its shapes stand in the model, its answer depends on its input."""
    got = load(server, TFLITE, "--name", "bare-detector")
    ports = server.get("/v1/models/" + got["id"]).json()
    x, = ports["inputs"]
    assert x["shape"] == [1, 300, 300, 3] and x["datatype"] == "FP32"
    sent = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
            "Xinfer-Shape": "1,300,300,3"}

    def ask(picture):
        answer = server.post("/v1/infer/bare-detector", picture.astype("<f4").tobytes(), headers=sent)
        assert answer.status == 200, answer
        return [numpy.array(o["data"]).reshape(o["shape"]) for o in answer.json()["outputs"]]
    grey = ask(numpy.zeros((1, 300, 300, 3)))
    noise = ask(numpy.random.default_rng(2).uniform(-1, 1, (1, 300, 300, 3)))
    assert [o.shape for o in grey] == [tuple(o["shape"]) for o in ports["outputs"]]
    assert all(numpy.isfinite(o).all() for o in grey + noise)
    assert max(numpy.abs(a - b).max() for a, b in zip(grey, noise)) > 0.1


def test_run_takes_a_bare_model(server, onnx, tmp_path):
    raw = tmp_path / "x.bin"
    raw.write_bytes(f32(1, 2, 3, 4).tobytes())
    said = server.cli("run", onnx("affine_static"), raw, "--shape", "1,4")
    assert said.rc == 0 and said.stdout == "y  FP32 [1,4]  [3, 5, 7, 9]\n", said


@pytest.mark.parametrize("name,data,code", [
    ("broken.onnx", b"this is no protobuf at all, and long enough", "XI-0301"),
    ("broken.tflite", b"TFL" * 20, "XI-0301"),
    ("broken.xref", b"xref 1\ninput x FP32 [4]\noutput y FP32 [4]\ny = mull x 2\n", "XI-0306"),
    ("empty.onnx", b"", "XI-0301"),
])
def test_a_model_that_is_none(server, tmp_path, name, data, code):
    path = tmp_path / name
    path.write_bytes(data)
    said = server.cli("load", path, "--json")
    assert said.rc == 1, said
    told = json.loads(said.stderr)
    assert told["code"] == code and len(told["detail"]) > 20, told


def test_an_operation_that_nobody_knows(server, tmp_path):
    m = make_onnx
    path = tmp_path / "odd.onnx"
    path.write_bytes(m.model(m.node("Frobnicate", ["x"], ["y"]), m.inputs(("x", m.FLOAT, [4])),
                             m.outputs(("y", m.FLOAT, [4]))))
    said = server.cli("load", path, "--json")
    assert said.rc == 1 and "Frobnicate" in said.stderr, said
    assert json.loads(said.stderr)["code"] == "XI-0306"
    assert server.get("/v1/health/live").status == 200
