"""deps/fetch: only what is pinned and whole gets its name under build/deps. Without a network: the
archives are made here and laid into build/deps/dl, and the registry's clients cannot reach any."""
import hashlib
import json
import os
import platform
import shutil
import subprocess
import zipfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Project:
    """A folder with deps/fetch and a lock file of one entry."""

    def __init__(self, folder):
        self.folder = folder
        self.deps = folder / "build" / "deps"
        (folder / "deps").mkdir()
        shutil.copy(os.path.join(ROOT, "deps", "fetch"), folder / "deps" / "fetch")
        archives = self.deps / "dl"
        archives.mkdir(parents=True)
        self.archive = archives / "thing-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.archive, "w") as z:
            z.writestr("thing/libs/libthing.so.7", b"machine code")
            z.writestr("thing/libs/libthing_gpu.so", b"left out")
            z.writestr("thing/assets.data", b"labels|model bytes")
        self.entry = {
            "for": ["build"], "client": "pip", "package": "no-such-package-xinfer", "version": "1.0",
            "python": "311", "platform": "manylinux_2_28_" + platform.machine(),
            "file": self.archive.name, "bytes": self.archive.stat().st_size,
            "sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest(),
            "take": [{"match": "thing/libs/*", "strip": "thing/libs/", "into": "lib/",
                      "except": ["*_gpu*"], "so_links": True},
                     {"match": "thing/assets.data", "as": "model", "offset": 7, "length": 5,
                      "sha256": hashlib.sha256(b"model").hexdigest()}],
        }

    def fetch(self):
        (self.folder / "deps" / "lock.json").write_text(json.dumps({"things/thing": self.entry}))
        env = dict(os.environ, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.folder))
        return subprocess.run([self.folder / "deps" / "fetch", "build"], env=env, text=True,
                              capture_output=True, check=False)

    @property
    def place(self):
        return self.deps / "things" / "thing"

    def leftovers(self):
        return [n for n in os.listdir(self.deps) if n.startswith((".fetch-", ".unpack-"))]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_takes_what_the_lock_names(project):
    done = project.fetch()
    assert done.returncode == 0, done.stderr
    assert (project.place / "lib" / "libthing.so.7").read_bytes() == b"machine code"
    assert os.readlink(project.place / "lib" / "libthing.so") == "libthing.so.7"
    assert not (project.place / "lib" / "libthing_gpu.so").exists()
    assert (project.place / "model").read_bytes() == b"model"


def test_a_second_run_says_nothing_and_needs_no_archive(project):
    assert project.fetch().returncode == 0
    project.archive.unlink()
    again = project.fetch()
    assert (again.returncode, again.stderr) == (0, "")


def test_a_changed_lock_entry_is_unpacked_anew(project):
    assert project.fetch().returncode == 0
    project.entry["take"] = project.entry["take"][1:]
    assert project.fetch().returncode == 0
    assert sorted(os.listdir(project.place)) == ["model"]


def test_a_torn_archive_is_not_used(project):
    project.archive.write_bytes(project.archive.read_bytes()[:-1])
    done = project.fetch()
    assert done.returncode == 1
    assert "Is there a network" in done.stderr
    assert not project.place.exists() and not project.leftovers()


def test_a_wrong_slice_is_refused_and_leaves_nothing(project):
    project.entry["take"][1]["sha256"] = "0" * 64
    done = project.fetch()
    assert done.returncode == 1
    assert "0000000000000000... is pinned" in done.stderr
    assert not project.place.exists() and not project.leftovers()


def test_a_rule_that_matches_nothing_is_an_error(project):
    project.entry["take"].append({"match": "thing/moved.h", "as": "moved.h"})
    done = project.fetch()
    assert done.returncode == 1
    assert "holds nothing like thing/moved.h" in done.stderr
    assert not project.place.exists()


def test_an_archive_with_another_checksum_from_the_registry_is_refused(project):
    served = project.folder / project.archive.name
    with zipfile.ZipFile(served, "w") as z:
        z.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    project.archive.unlink()
    project.entry["package"] = "thing"
    done = project.fetch()
    assert done.returncode == 1
    assert "checksum is not the pinned" in done.stderr
    assert not project.archive.exists() and not project.leftovers()
