"""Small models of the reference engine, and requests to them."""
import json
import struct

from daemon import run_program

DOUBLE = """xref 1
input x FP32 [-1,4]
output y FP32 [-1,4]
t = mul x 2
y = add t 1
"""


def write(tmp_path, name, text=DOUBLE, *faults):
    """A model file; each fault is the text behind the word `fault`."""
    path = tmp_path / (name + ".xref")
    path.write_text(text + "".join("fault %s\n" % f for f in faults))
    return str(path)


def package(folder, name, text, engine="reference", flow=None, device=None, model=None, also=(),
            variant=None):
    """Packs a model of the reference format; returns the package's path. engine "simulated" with
    device "GPU.0" or "NPU.0" needs the fixture `simulated`; model: more keys of models.main; variant: of
    its variant; also: more variants behind the one."""
    (folder / (name + ".xref")).write_text(text)
    variant = {"id": "f32", "files": ["variants/m.xref"], "format": "reference",
               "engine": {"name": engine}, "precision": "f32", **(variant or {})}
    if device:
        variant["device"] = device
    manifest = {"xpkg": 1, "name": name, "version": "1.0.0", "output": "tensors",
                "input": "image" if flow else "tensors",
                "models": {"main": {"variants": [variant, *also], **(model or {})}}}
    files = {"variants/m.xref": name + ".xref"}
    if flow:
        (folder / "flow.json").write_text(json.dumps(flow))
        manifest["flow"], files["flow.json"] = "flow.json", "flow.json"
    (folder / "recipe.json").write_text(json.dumps({"recipe": 1, "manifest": manifest,
                                                    "files": files}))
    path = folder / (name + ".xpkg")
    said = run_program("xinfer", "pack", folder / "recipe.json", "-o", path)
    assert said.rc == 0, said
    return path


def floats(*values):
    return struct.pack("<%df" % len(values), *values)


def ask(daemon, model, *values, headers=None, timeout=60, unix=False):
    """Sends FP32 [n/4,4] and returns the answer; ok(answer) reads its numbers."""
    sent = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
            "Xinfer-Shape": "%d,4" % (len(values) // 4), **(headers or {})}
    return daemon.post("/v1/infer/" + model, floats(*values), headers=sent, timeout=timeout,
                       unix=unix)


def numbers(answer):
    """The FP32 data of the first output of a JSON answer."""
    assert answer.status == 200, answer
    return answer.json()["outputs"][0]["data"]


def session(daemon, name):
    for s in daemon.get("/v1/models").json()["models"]:
        if s["name"] == name:
            return s
    return None
