"""The specification in docs/ and the program agree: the JSON Schema with the parser, the reader
printed there with the writer."""
import copy
import json
import os
import re
import subprocess

import jsonschema
import pytest

from daemon import ROOT, build_dir

TOOL = os.path.join(build_dir(), "test", "package_tool")
SEEDS = os.path.join(ROOT, "tests", "fuzz", "corpus", "manifest")


def doc(name):
    with open(os.path.join(ROOT, "docs", name)) as f:
        return f.read()


@pytest.fixture(scope="module")
def schema():
    s = json.loads(doc("xpkg.schema.json"))
    jsonschema.Draft202012Validator.check_schema(s)
    return jsonschema.Draft202012Validator(s)


def complete():
    """A manifest with every member of the schema."""
    with open(os.path.join(SEEDS, "complete.json")) as f:
        return json.load(f)


def verdicts(tmp_path, manifests):
    names = []
    for i, m in enumerate(manifests):
        names.append(str(tmp_path / ("%d.json" % i)))
        with open(names[-1], "w") as f:
            json.dump(m, f)
    done = subprocess.run([TOOL, "manifests"] + names, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done
    lines = done.stdout.splitlines()
    assert len(lines) == len(manifests)
    return lines


def places(node, path=()):
    """Every (path, key) of a document, free members apart."""
    for key in node if isinstance(node, dict) else range(len(node)):
        if isinstance(key, str) and key.startswith("x-"):
            continue
        yield path + (key,)
        if isinstance(node[key], (dict, list)):
            yield from places(node[key], path + (key,))


def changed(document, path, value=None):
    """A copy with the value at path replaced, or taken away."""
    out = copy.deepcopy(document)
    node = out
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return out


def test_the_seeds_fit_schema_and_parser(schema, tmp_path):
    with open(os.path.join(ROOT, "zoo", "object-detector", "recipe.json")) as f:
        manifests = [complete(), json.load(f)["manifest"]]
    for m in manifests:
        schema.validate(m)
    assert verdicts(tmp_path, manifests) == ["OK "] * 2


def test_the_parser_accepts_nothing_that_the_schema_refuses(schema, tmp_path):
    whole = complete()
    cases = []
    for path in places(whole):
        cases.append(changed(whole, path))
        for value in ("zz zz", "\u0001", "", -7, 1e40, 2**60, True, [], ["a", "a"], [[]], {}, {"q": 1}):
            cases.append(changed(whole, path, value))
    refused_by_both = 0
    for m, verdict in zip(cases, verdicts(tmp_path, cases)):
        if verdict.startswith("OK"):
            schema.validate(m)
        elif not schema.is_valid(m):
            refused_by_both += 1
    assert refused_by_both > len(cases) / 2


def test_null_is_no_value(schema, tmp_path):
    m = dict(complete(), license=None)
    assert not schema.is_valid(m)
    assert "license is null" in verdicts(tmp_path, [m])[0]


def test_the_reader_in_the_specification(tmp_path):
    code = re.search(r"```python\n(.*?)```", doc("package-format.md"), re.S).group(1)
    assert code.count("\n") <= 50
    (tmp_path / "reader.py").write_text(code)
    (tmp_path / "m.xref").write_bytes(b"hello\n")
    recipe = {"recipe": 1, "files": {"variants/m.xref": "m.xref", "assets/empty": {"file": "m.xref", "bytes": 0}},
              "manifest": {"xpkg": 1, "name": "tiny", "version": "1.0.0", "input": "tensors",
                           "output": "tensors", "models": {"main": {"variants": [{
                               "id": "f32", "files": ["variants/m.xref"], "format": "reference",
                               "engine": {"name": "reference"}, "precision": "f32"}]}}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    package = tmp_path / "x.xpkg"
    subprocess.run([TOOL, "pack", tmp_path / "recipe.json", package], check=True, capture_output=True)
    read = subprocess.run(["python3", tmp_path / "reader.py", package], capture_output=True, text=True)
    assert read.returncode == 0, read
    assert "tiny 1.0.0" in read.stdout and "6 variants/m.xref" in read.stdout
    data = bytearray(package.read_bytes())
    data[60] ^= 1
    package.write_bytes(data)
    assert subprocess.run(["python3", tmp_path / "reader.py", package], capture_output=True).returncode != 0
