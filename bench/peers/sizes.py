"""What lies on the disk: our programs with one engine, and the peers' parts of the virtual environment."""
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import measure  # noqa: E402
from servers import SITE  # noqa: E402

MIB = 1 << 20
CONTAINER = 15.5e9  # as others say; not measured here
CONTAINER_SAID = "github.com/triton-inference-server/server/issues/7474"


def folder_bytes(*paths):
    """Bytes of files and folders, a file with two names once."""
    seen = {}
    for path in paths:
        found = [path] if os.path.isfile(path) else [os.path.join(r, n) for r, _, names in os.walk(path) for n in names]
        for name in found:
            if not os.path.islink(name):
                s = os.stat(name)
                seen[s.st_dev, s.st_ino] = s.st_size
    return sum(seen.values())


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(*packages):
    """Packages and all they need, as pip would install them here: bytes of their files."""
    at = {plain(d.metadata["Name"]): d for d in importlib.metadata.distributions(path=[SITE])}
    wanted, total, todo = set(), 0, [plain(p) for p in packages]
    while todo:
        name = todo.pop()
        if name in wanted or name not in at:
            continue
        wanted.add(name)
        total += sum(os.path.getsize(f.locate()) for f in at[name].files or [] if os.path.isfile(f.locate()))
        for line in at[name].requires or []:
            head = re.match(r"[A-Za-z0-9._-]+", line).group(0)
            if "extra ==" not in line:
                todo.append(plain(head))
    return total


def stripped(path):
    """As packages carry programs: without what debuggers want."""
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        subprocess.run(["strip", "-o", copy, path], check=True)
        return os.path.getsize(copy)


def measure_ours():
    build = measure.harness.build_dir()
    found = {n: stripped(os.path.join(build, "bin", n)) for n in ("xinferd", "xinfer-host")}
    both, engines = sum(found.values()), os.path.join(build, "lib", "xinfer")
    for name in ("openvino", "onnxruntime"):
        plugins = [os.path.join(engines, f) for f in os.listdir(engines) if name in f and f.endswith(".so")]
        library = os.path.join(measure.ROOT, "build", "deps", name, "lib")
        if plugins and os.path.isdir(library):
            found["xInfer (both) with " + name] = both + sum(map(stripped, plugins)) + folder_bytes(library)
    return found


def figures():
    found = measure_ours()
    for name, packages in (("Triton (wheel)", "nvidia-pytriton"), ("MLServer", "mlserver"),
                           ("LitServe", "litserve"), ("Mosec", "mosec")):
        found[name + " with ONNX Runtime for Python"] = installed(packages, "onnxruntime")
    return found
