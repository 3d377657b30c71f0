"""What lies on the disk: our programs with one engine, and the peers' parts of the virtual environment."""
import importlib.metadata
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import measure  # noqa: E402
from servers import SITE  # noqa: E402

MIB = 1 << 20


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


def installed(package):
    """A package and all it needs, as pip would install it here: bytes of their files."""
    at = {plain(d.metadata["Name"]): d for d in importlib.metadata.distributions(path=[SITE])}
    wanted, total, todo = set(), 0, [plain(package)]
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
    return total, len(wanted)


def measure_ours():
    build = measure.harness.build_dir()
    programs = [os.path.join(build, "bin", n) for n in ("xinferd", "xinfer-host")]
    found = {"xinferd": folder_bytes(programs[0]), "xinfer-host": folder_bytes(programs[1])}
    engines = os.path.join(build, "lib", "xinfer")
    for name in ("openvino", "onnxruntime"):
        plugin = [os.path.join(engines, f) for f in os.listdir(engines) if name in f]
        library = os.path.join(measure.ROOT, "build", "deps", name, "lib")
        if plugin and os.path.isdir(library):
            found["xInfer with " + name] = folder_bytes(*programs, *plugin, library)
    return found


def figures():
    found = measure_ours()
    for name, packages in (("Triton (wheel, Python backend)", ["nvidia-pytriton"]), ("MLServer", ["mlserver"]),
                           ("LitServe", ["litserve"]), ("Mosec", ["mosec"])):
        found[name], _ = installed(packages[0])
    runtime, _ = installed("onnxruntime")
    found["…each with ONNX Runtime for Python, more"] = runtime
    return found


def show(found):
    print("\non the disk, MiB")
    for name, size in found.items():
        print("  %-44s %8.1f" % (name, size / MIB))
