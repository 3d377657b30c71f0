"""Small models of the reference engine, and requests to them."""
import struct

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
