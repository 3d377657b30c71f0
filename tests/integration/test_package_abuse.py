"""Bad packages, made byte by byte or by Python's own zipfile: each refusal names entry and rule,
and leaves nothing that could run. Drives build/test/package_tool, which needs no daemon."""
import hashlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import zipfile
import zlib

import pytest

from daemon import ROOT, build_dir

TOOL = os.path.join(build_dir(), "test", "package_tool")
ALIGN = 4096
MODEL = b"input x FP32 2\n"


def tool(*args):
    return subprocess.run([TOOL, *map(str, args)], capture_output=True, text=True, timeout=60)


def refused(said, *words):
    assert said.returncode == 1, said
    code, message = said.stderr.split(" ", 1)
    assert "Sanitizer" not in said.stderr and "runtime error" not in said.stderr, said.stderr
    for word in words:
        assert word in message, said.stderr
    return code


def manifest(**changes):
    m = {"xpkg": 1, "name": "tiny", "version": "1.2.3", "input": "tensors", "output": "tensors",
         "models": {"main": {"variants": [{
             "id": "f32", "files": ["variants/m.xref"], "format": "reference",
             "engine": {"name": "reference"}, "precision": "f32"}]}}}
    m.update(changes)
    return m


def variant(files, format):
    return {"main": {"variants": [{"id": "f32", "files": files, "format": format,
                                   "engine": {"name": "openvino"}, "precision": "f32"}]}}


class Entry:
    """One entry with every field of its two headers, so that a test can lie in any of them."""

    def __init__(self, path, data, **lies):
        self.path, self.data = path.encode() if isinstance(path, str) else path, data
        self.method = self.flags = self.time = 0
        self.date, self.version, self.made_by, self.attributes = 0x21, 20, 3 << 8 | 20, 0o100644 << 16
        self.crc, self.size, self.packed_size = zlib.crc32(data), len(data), len(data)
        self.central_path, self.central_extra, self.comment, self.offset = self.path, b"", b"", None
        for name, value in lies.items():
            setattr(self, name, value)

    def local(self, at):
        least = at + 30 + len(self.path) + 6
        padding = -least % ALIGN
        return struct.pack("<IHHHHHIIIHH", 0x04034B50, self.version, self.flags, self.method, self.time,
                           self.date, self.crc, self.packed_size, self.size, len(self.path),
                           6 + padding) + self.path + struct.pack("<HHH", 0xD935, 2 + padding, ALIGN) + \
            bytes(padding)

    def central(self, at):
        at = at if self.offset is None else self.offset
        return struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, self.made_by, self.version, self.flags,
                           self.method, self.time, self.date, self.crc, self.packed_size, self.size,
                           len(self.central_path), len(self.central_extra), len(self.comment), 0, 0,
                           self.attributes, at) + self.central_path + self.central_extra + self.comment


def end_record(count, size, offset, comment=b""):
    return struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, offset, len(comment)) + comment


def archive(entries, count=None, comment=b""):
    """The canonical archive as docs/package-format.md describes it, written by none of our C."""
    out, central = bytearray(), bytearray()
    for e in entries:
        central += e.central(len(out))
        out += e.local(len(out)) + e.data
    return bytes(out + central + end_record(len(entries) if count is None else count, len(central),
                                            len(out), comment))


def good_entries(**changes):
    return [Entry("manifest.json", json.dumps(manifest(**changes)).encode()),
            Entry("assets/a.txt", b"cat\n"), Entry("variants/m.xref", MODEL)]


def write(tmp_path, data):
    path = tmp_path / "x.xpkg"
    path.write_bytes(data)
    return path


def verify(tmp_path, data):
    return tool("verify", write(tmp_path, data))


def test_a_package_written_by_another_hand_is_accepted(tmp_path):
    data = archive(good_entries())
    said = verify(tmp_path, data)
    assert said.returncode == 0, said
    assert said.stdout.split() == [hashlib.sha256(data).hexdigest(), "3"]


def test_python_and_unzip_open_what_we_write(tmp_path):
    (tmp_path / "m.xref").write_bytes(MODEL)
    (tmp_path / "recipe.json").write_text(json.dumps(
        {"recipe": 1, "manifest": manifest(), "files": {"variants/m.xref": "m.xref"}}))
    said = tool("pack", tmp_path / "recipe.json", tmp_path / "out.xpkg")
    assert said.returncode == 0, said
    with zipfile.ZipFile(tmp_path / "out.xpkg") as z:
        assert z.testzip() is None
        assert z.namelist() == ["manifest.json", "variants/m.xref"]
        assert z.read("variants/m.xref") == MODEL
        assert json.loads(z.read("manifest.json")) == manifest()
        for info in z.infolist():
            with open(tmp_path / "out.xpkg", "rb") as f:
                f.seek(info.header_offset + 26)
                name, extra = struct.unpack("<HH", f.read(4))
            assert (info.header_offset + 30 + name + extra) % ALIGN == 0
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tqq", tmp_path / "out.xpkg"], check=True)


@pytest.mark.parametrize("path, rule", [
    ("../../etc/cron.d/x", ".."), ("assets/../../x", ".."), ("/etc/passwd", "absolute"),
    ("C:/windows/x", "drive letter"), ("assets\\..\\x", "backslash"), ("assets/a\nb", "control"),
    ("assets/a\0.txt", "control"), ("assets/ä", "outside"), ("assets/.ssh", "starts with '.'"),
    ("assets/aux.txt", "device name"), ("assets/", "empty part"), ("elsewhere/x", "belongs nowhere"),
    ("a" * 256, "longer than 255"), ("", "is empty"),
])
def test_paths(tmp_path, path, rule):
    entries = good_entries()
    entries.insert(1, Entry(path, b"x"))
    assert refused(verify(tmp_path, archive(entries)), "its path" if rule[0] != "b" else "", rule) == "EPACKAGE"


@pytest.mark.parametrize("lies, words", [
    ({"attributes": 0o120777 << 16}, ["plain files"]),  # a symbolic link
    ({"attributes": 0o020666 << 16}, ["plain files"]),  # a device
    ({"attributes": 0o100755 << 16}, ["plain files"]),
    ({"method": 8}, ["compression method", "is 8, must be 0"]),
    ({"flags": 1}, ["flags is 1"]),  # encrypted
    ({"flags": 8}, ["flags is 8"]),  # sizes behind the data
    ({"flags": 0x800}, ["flags"]),
    ({"packed_size": 3}, ["compressed size is 3, must be 4"]),
    ({"size": 3, "packed_size": 3}, []),
    ({"size": 5, "packed_size": 5}, []),
    ({"crc": 1}, ["CRC-32"]),
    ({"time": 1}, ["time stamp"]),
    ({"date": 0x5000}, ["time stamp"]),
    ({"made_by": 20}, ["version made by"]),
    ({"version": 45, "made_by": 3 << 8 | 45}, ["version needed"]),
    ({"comment": b"hello"}, ["comment"]),
    ({"central_path": b"assets/b.txt"}, ["local header", "name"]),
    ({"central_extra": struct.pack("<HHQ", 1, 8, 4)}, ["extra field"]),  # a zip64 lie
    ({"size": 0xFFFFFFFF, "packed_size": 0xFFFFFFFF,
      "central_extra": struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62)}, ["the archive has"]),
    ({"size": 0xFFFFFFFF, "packed_size": 0xFFFFFFFF,
      "central_extra": struct.pack("<HHQQ", 1, 16, 4, 4)}, []),
    ({"offset": 0}, ["offset of the local header is 0"]),  # overlaps the manifest
    ({"offset": 0xFFFFFFF0}, ["offset of the local header"]),
])
def test_one_lie_in_a_header(tmp_path, lies, words):
    entries = good_entries()
    entries[1] = Entry("assets/a.txt", b"cat\n", **lies)
    said = verify(tmp_path, archive(entries))
    assert refused(said, *words) == "EPACKAGE"
    assert "entry \"" in said.stderr, said.stderr


def test_names_that_clash(tmp_path):
    for path, words in (("assets/a.txt", "appears twice"), ("assets/A.txt", "case of letters"),
                        ("assets/a.txt/b", "needs a folder")):
        entries = good_entries()
        entries.insert(1 if path < "assets/a.txt" else 2, Entry(path, b"dog\n"))
        refused(verify(tmp_path, archive(entries)), words)


def test_order_and_first_entry(tmp_path):
    a, b, c = good_entries()
    refused(verify(tmp_path, archive([a, c, b])), "out of order")
    refused(verify(tmp_path, archive([b, a, c])), "must be manifest.json")
    refused(verify(tmp_path, archive([b, c])), "must be manifest.json")


def test_what_stands_around_the_archive(tmp_path):
    data = archive(good_entries())
    refused(verify(tmp_path, data + b"x"), "end record")
    refused(verify(tmp_path, data + data), "directory")
    refused(verify(tmp_path, b"#!/bin/sh\n" + data), "directory")  # a polyglot
    refused(verify(tmp_path, b"\x89PNG\r\n" + bytes(4090) + data), "directory")
    refused(verify(tmp_path, data[:-1]), "end record")
    refused(verify(tmp_path, data[:len(data) // 2]), "end record")  # half an upload
    refused(verify(tmp_path, b""), "end record")
    refused(verify(tmp_path, archive(good_entries(), comment=b"hi")), "end record")
    refused(verify(tmp_path, archive(good_entries(), count=4)), "")
    refused(verify(tmp_path, archive(good_entries(), count=2)), "")
    refused(verify(tmp_path, archive(good_entries(), count=0)), "no entries")
    refused(verify(tmp_path, archive([])), "no entries")


def test_a_gap_between_entries(tmp_path):
    a, b, c = good_entries()
    head = a.local(0) + a.data
    gap = bytes(ALIGN)
    body = head + gap + b.local(len(head) + ALIGN) + b.data
    central = a.central(0) + b.central(len(head) + ALIGN) + c.central(len(body))
    body += c.local(len(body)) + c.data
    refused(verify(tmp_path, body + central + end_record(3, len(central), len(body))),
            "assets/a.txt", "offset of the local header")


def test_a_million_entries(tmp_path):
    # 65535 fit the plain record: the count alone is enough to refuse
    data = archive(good_entries())
    refused(verify(tmp_path, data[:-22] + end_record(0xFFFF, 46 * 0xFFFF, 0)), "65535 entries",
            "at most 4096")
    many = [Entry("manifest.json", b"{}")] + [Entry("assets/%05d" % i, b"") for i in range(4096)]
    refused(verify(tmp_path, archive(many)), "4097 entries")


def test_a_zip64_end_that_lies(tmp_path):
    data = archive(good_entries())
    central = len(data) - 22 - struct.unpack("<I", data[-10:-6])[0]
    for offset in (central, 1 << 63, (1 << 64) - 1, 0):
        end64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 3 << 8 | 45, 45, 0, 0, 3, 3,
                            len(data) - 22 - central, offset)
        locator = struct.pack("<IIQI", 0x07064B50, 0, len(data) - 22, 1)
        end = end_record(3, len(data) - 22 - central, 0xFFFFFFFF)
        refused(verify(tmp_path, data[:-22] + end64 + locator + end), "archive")


def test_foreign_zip_files(tmp_path):
    """What other writers make is a ZIP, but not a package; the reason is the first rule broken."""
    path = tmp_path / "x.xpkg"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("manifest.json", json.dumps(manifest()))
        z.writestr("variants/m.xref", MODEL)
    refused(tool("verify", path), "manifest.json", "compression method", "xinfer pack")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("manifest.json", json.dumps(manifest()))
        z.writestr("variants/m.xref", bytes(100 << 20))  # a bomb
    refused(tool("verify", path), "variants/m.xref", "says 104857600 bytes, the archive has")
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("manifest.json", json.dumps(manifest()))
        z.writestr("../../evil", "x")
    refused(tool("verify", path), "evil", "..")
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("../../evil", "x")
    refused(tool("verify", path), "evil", "..")


def test_not_a_regular_file(tmp_path):
    refused(tool("verify", tmp_path), "regular file")
    refused(tool("verify", "/dev/zero"), "regular file")


def install(tmp_path, entries):
    staging = tmp_path / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    return tool("install", write(tmp_path, archive(entries)), staging), staging


def test_install_stages_every_entry(tmp_path):
    said, staging = install(tmp_path, good_entries() + [])
    assert said.returncode == 0, said
    assert sorted(os.listdir(staging)) == ["0", "1", "2"]
    assert (staging / "2").read_bytes() == MODEL
    lines = said.stdout.splitlines()
    assert lines[0].startswith("tiny 1.2.3 " + hashlib.sha256(archive(good_entries())).hexdigest())
    assert lines[3] == "2 %s %d variants/m.xref" % (hashlib.sha256(MODEL).hexdigest(), len(MODEL))


def test_install_does_not_follow_or_overwrite(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("safe")
    (staging / "1").symlink_to(victim)
    assert refused(tool("install", write(tmp_path, archive(good_entries())), staging)) in ("EIO", "EDISK")
    assert victim.read_text() == "safe"


def test_no_room_left(tmp_path):
    """The disk fills while a package is staged (here: a limit on the size of files)."""
    staging = tmp_path / "staging"
    staging.mkdir()
    path = write(tmp_path, archive(good_entries()))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    said = subprocess.run([TOOL, "install", path, staging], capture_output=True, text=True,
                          preexec_fn=limit, timeout=60)
    assert refused(said, "installing the package") in ("EDISK", "EIO")


def test_a_package_that_shrinks_while_it_is_read(tmp_path):
    """The reader may refuse or finish, depending on who was first, but never fault."""
    data = archive(good_entries() + [])
    path = write(tmp_path, data)
    for size in range(0, len(data), 1500):
        path.write_bytes(data)
        reader = subprocess.Popen([TOOL, "verify", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True)
        os.truncate(path, size)
        out, err = reader.communicate(timeout=60)
        assert reader.returncode in (0, 1) and "Sanitizer" not in err, (reader.returncode, err)


def test_a_source_that_is_another_file(tmp_path):
    source = [{"path": "variants/m.xref", "sha256": "0" * 64}]
    said, _ = install(tmp_path, good_entries(source=source))
    assert refused(said, "variants/m.xref", "SHA-256 0000000000000000") == "EDIGEST"


def test_a_golden_tensor_of_another_size(tmp_path):
    golden = [{"id": "g", "input": {"tensors": [{"name": "x", "dtype": "FP32", "shape": [2],
                                                 "file": "assets/a.txt"}]},
               "expect": {"tensors": [{"name": "y", "dtype": "FP32", "shape": [1], "data": [1]}]}}]
    said, _ = install(tmp_path, good_entries(golden=golden))
    refused(said, "assets/a.txt", "has 4 bytes", "wants 8")


# ---- models that reach outside, or claim more than they hold ----

def varint(value):
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, *parts):
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def external(**keys):
    """A TensorProto of two floats that lie elsewhere."""
    return number(1, 2) + number(2, 1) + message(8, b"w") + number(14, 1) + b"".join(
        message(13, message(1, k.encode()), message(2, v.encode())) for k, v in keys.items())


def raw(elements, data):
    return number(1, elements) + number(2, 1) + message(8, b"w") + message(9, data)


def in_initializer(tensor):
    return message(7, message(5, tensor))


def in_sparse(tensor):
    return message(7, message(15, message(1, tensor)))


def in_attribute(tensor):
    return message(7, message(1, message(5, message(1, b"value"), message(5, tensor))))


def in_subgraph(tensor):
    branch = message(5, message(1, b"then_branch"), message(6, message(1, message(5, message(5, tensor)))))
    return message(7, message(1, branch))


def in_function(tensor):
    return message(25, message(7, message(5, message(5, tensor))))


def in_training(tensor):
    return message(20, message(1, message(5, tensor)))


def install_onnx(tmp_path, model, data=bytes(8)):
    files = ["variants/m.onnx"] + (["variants/w.bin"] if data is not None else [])
    m = manifest(models=variant(files, "onnx"))
    entries = [Entry("manifest.json", json.dumps(m).encode()), Entry("variants/m.onnx", model)]
    if data is not None:
        entries.append(Entry("variants/w.bin", data))
    return install(tmp_path, entries)[0]


PLACES = [in_initializer, in_sparse, in_attribute, in_subgraph, in_function, in_training]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "sub/w.bin", "m.onnx", "other.bin", "",
                                      "*/_ORT_MEM_ADDR_/*"])
def test_onnx_external_data_outside(tmp_path, place, location):
    said = install_onnx(tmp_path, number(1, 8) + place(external(location=location)))
    refused(said, "variants/m.onnx", "external data in \"%s\"" % location, "not another file")


@pytest.mark.parametrize("place", PLACES)
def test_onnx_external_data_inside(tmp_path, place):
    said = install_onnx(tmp_path, number(1, 8) + place(external(location="w.bin")))
    assert said.returncode == 0, said


@pytest.mark.parametrize("keys, words", [
    ({"offset": "4"}, "has 8 bytes, a tensor wants 8 from 4"),
    ({"offset": "18446744073709551615"}, "from 18446744073709551615"),
    ({"offset": "-1"}, "negative"),
    ({"offset": "9" * 30}, "number"),
    ({"length": "4"}, "claims 2 elements and 4 bytes"),
    ({"length": "1x"}, "number"),
])
def test_onnx_external_data_past_its_file(tmp_path, keys, words):
    refused(install_onnx(tmp_path, in_initializer(external(location="w.bin", **keys))), words)


@pytest.mark.parametrize("model, words", [
    (in_initializer(raw(3, bytes(8))), "claims 3 elements and holds 8 bytes"),
    (in_initializer(raw(1 << 62, bytes(8))), "holds 8 bytes"),
    (in_initializer(number(1, (1 << 64) - 1) + number(2, 1) + message(9, bytes(4))), "holds 4 bytes"),
    (b"\xff" * 20, "no ONNX model"), (b"", "empty"), (message(7, b"\x2a\xff\x01"), "runs past"),
    (b"\x3b", "unknown wire type"), (b"\x00\x01", "without a number"),
    (message(7, message(1, message(5, *[b""] * 1))) + b"\x80" * 11, "ten bytes"),
])
def test_onnx_that_lies(tmp_path, model, words):
    refused(install_onnx(tmp_path, model, data=None), "variants/m.onnx" if model else "", words)


def test_onnx_nested_without_end(tmp_path):
    graph = message(5, raw(2, bytes(8)))
    for _ in range(40):  # each round is three messages: graph, node, attribute
        graph = message(1, message(5, message(6, graph)))
    refused(install_onnx(tmp_path, message(7, graph), data=None), "nested over 64 deep")


IR = """<?xml version="1.0"?><net name="m" version="11"><layers><layer id="0" type="Const">
<data element_type="f32" shape="2" offset="%s" size="%s"/><output><port id="0"><dim>%s</dim></port></output>
</layer></layers></net>"""


@pytest.mark.parametrize("xml, words", [
    (IR % (0, 8, 2), None), (IR % (0, 16, 4), "a constant of 16 bytes from 0, its .bin has 8"),
    (IR % (8, 8, 2), "from 8"), (IR % ("99999999999999999999", 8, 2), "a constant"),
    (IR % (0, "-1", 2), "a constant"), (IR % (0, 8, 10**12), "a dimension"),
    (IR % (0, 8, "x"), "a dimension"), ("<net>" + IR.replace("%s", "0") + "<", "doesn't end"),
    ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><net/>', "document type"),
    ("<net>\0</net>", "NUL"), ("no xml", "no <net>"), ("", "empty"),
])
def test_ir(tmp_path, xml, words):
    m = manifest(models=variant(["variants/m.xml", "variants/m.bin"], "openvino-ir"))
    said, _ = install(tmp_path, [Entry("manifest.json", json.dumps(m).encode()),
                                 Entry("variants/m.bin", bytes(8)), Entry("variants/m.xml", xml.encode())])
    if words is None:
        assert said.returncode == 0, said
    else:
        refused(said, words)


def test_tflite_without_its_mark(tmp_path):
    m = manifest(models=variant(["variants/m.tflite"], "tflite"))
    said, _ = install(tmp_path, [Entry("manifest.json", json.dumps(m).encode()),
                                 Entry("variants/m.tflite", bytes(100))])
    refused(said, "variants/m.tflite", "TFL3")


# ---- making packages ----

def test_packing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "m.xref").write_bytes(MODEL)
        os.utime(folder / "m.xref", (1, 1) if name == "a" else (1e9, 1e9))
        (folder / "recipe.json").write_text(json.dumps(
            {"recipe": 1, "manifest": manifest(), "files": {"variants/m.xref": {"file": "m.xref"}}}))
        assert tool("pack", folder / "recipe.json", folder / "out").returncode == 0
    assert (tmp_path / "a" / "out").read_bytes() == (tmp_path / "b" / "out").read_bytes()


def test_a_slice_of_a_source(tmp_path):
    (tmp_path / "big").write_bytes(b"xxxx" + MODEL + b"yyyy")
    digest = hashlib.sha256(MODEL).hexdigest()
    recipe = {"recipe": 1, "manifest": manifest(source=[{"path": "variants/m.xref", "license": "MIT"}]),
              "files": {"variants/m.xref": {"source": "big", "offset": 4, "bytes": len(MODEL),
                                            "sha256": digest}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    said = tool("pack", tmp_path / "recipe.json", tmp_path / "out", tmp_path)
    assert said.returncode == 0, said
    with zipfile.ZipFile(tmp_path / "out") as z:
        assert z.read("variants/m.xref") == MODEL
        assert json.loads(z.read("manifest.json"))["source"][0]["sha256"] == digest
    refused(tool("pack", tmp_path / "recipe.json", tmp_path / "out"), "comes from the sources", "--sources")
    for change, words in (({"sha256": "0" * 64}, "the recipe wants 0000"), ({"bytes": 1000}, "are wanted"),
                          ({"source": "../big"}, '".."'), ({"source": "/etc/passwd"}, '".."'),
                          ({"source": "gone"}, "gone"), ({"file": "big"}, "not both"),
                          ({"ofset": 1}, "offset")):
        recipe["files"]["variants/m.xref"].update(change)
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        refused(tool("pack", tmp_path / "recipe.json", tmp_path / "out", tmp_path), words)
        recipe["files"]["variants/m.xref"] = {"source": "big", "offset": 4, "bytes": len(MODEL)}


def test_a_recipe_that_forgets_or_adds_a_file(tmp_path):
    (tmp_path / "m.xref").write_bytes(MODEL)
    for files, words in (({}, "is not in the package"),
                         ({"variants/m.xref": "m.xref", "variants/n.xref": "m.xref"}, "doesn't name it"),
                         ({"variants/m.xref": "m.xref", "manifest.json": "m.xref"}, "appears twice"),
                         ({"variants/m.xref": "m.xref", "x": "m.xref"}, "doesn't name it")):
        (tmp_path / "recipe.json").write_text(json.dumps({"recipe": 1, "manifest": manifest(), "files": files}))
        refused(tool("pack", tmp_path / "recipe.json", tmp_path / "out"), words)


@pytest.mark.parametrize("name, expected", [
    ("resnet50.onnx", "resnet50"), ("my model (1).ONNX", "my-model--1-"), (".hidden.onnx", "hidden"),
    ("ä.onnx", "model"),
])
def test_a_bare_onnx_model(tmp_path, name, expected):
    model = number(1, 8) + in_initializer(external(location="w.bin"))
    (tmp_path / name).write_bytes(model)
    (tmp_path / "w.bin").write_bytes(bytes(8))
    said = tool("bare", tmp_path / name, tmp_path / "out")
    assert said.returncode == 0, said
    assert said.stdout.split()[3] == expected
    with zipfile.ZipFile(tmp_path / "out") as z:
        assert z.namelist() == ["manifest.json", "variants/model.onnx", "variants/w.bin"]
        m = json.loads(z.read("manifest.json"))
    assert m["input"] == m["output"] == "tensors" and m["version"].startswith("0.0.0+")
    staging = tmp_path / "staging"
    staging.mkdir()
    assert tool("install", tmp_path / "out", staging).returncode == 0


def test_bare_models(tmp_path):
    (tmp_path / "a.xref").write_bytes(MODEL)
    said = tool("bare", tmp_path / "a.xref", tmp_path / "out")
    assert said.stdout.split()[3:] == ["a", "0.0.0+" + hashlib.sha256(MODEL).hexdigest()[:8]]
    (tmp_path / "b.xml").write_text(IR % (0, 8, 2))
    assert refused(tool("bare", tmp_path / "b.xml", tmp_path / "out"), "b.bin") == "ENOENT"
    (tmp_path / "b.bin").write_bytes(bytes(8))
    assert tool("bare", tmp_path / "b.xml", tmp_path / "out").returncode == 0
    (tmp_path / "c.pt").write_bytes(b"x")
    assert refused(tool("bare", tmp_path / "c.pt", tmp_path / "out"), "write a recipe") == "EUNSUPPORTED"
    (tmp_path / "d.onnx").write_bytes(in_initializer(external(location="../b.bin")))
    refused(tool("bare", tmp_path / "d.onnx", tmp_path / "out"), "no file beside it")


def test_the_zoo_recipe_packs_to_one_digest(tmp_path):
    recipe, sources = os.path.join(ROOT, "zoo", "object-detector", "recipe.json"), os.path.join(ROOT, "build", "deps")
    if not os.path.exists(os.path.join(sources, "zoo", "object-detector")):
        pytest.skip("the zoo's sources are not here: run  make zoo")
    said = [tool("pack", recipe, tmp_path / str(i), sources) for i in range(2)]
    assert said[0].returncode == 0, said[0]
    assert said[0].stdout == said[1].stdout
    info = json.loads(tool("json", tmp_path / "0").stdout)
    assert info["digest"] == "sha256:" + said[0].stdout.split()[0]
    with zipfile.ZipFile(tmp_path / "0") as z:
        for e in info["entries"]:
            assert hashlib.sha256(z.read(e["path"])).hexdigest() == e["sha256"]
    assert "model main" in tool("inspect", tmp_path / "0").stdout
