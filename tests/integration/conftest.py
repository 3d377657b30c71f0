"""Fixtures of the integration tests: the real programs, driven as a user drives them."""
import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import ROOT, Daemon, build_dir, program  # noqa: E402

sys.path.append(os.path.join(ROOT, "build", "deps", "clients"))


def pytest_report_header():
    return "programs under test: %s" % os.path.join(build_dir(), "bin")


def pytest_sessionstart():
    for name in ("xinferd", "xinfer", "xinfer-host"):
        if not os.path.exists(program(name)):
            pytest.exit("%s is missing: run  make build" % program(name), returncode=2)


@pytest.fixture
def new_daemon(request):
    """new_daemon(*args, env=...): daemons that are not started yet; all end with the test."""
    made = []
    crashing = tuple(name for mark in request.node.iter_markers("crashes") for name in mark.args)

    def make(*args, env=None):
        made.append(Daemon(*args, env=env))
        made[-1].crashing = crashing
        return made[-1]

    yield make
    errors = []
    for d in made:
        try:
            d.close()
        except AssertionError as e:
            errors.append(str(e))
    assert not errors, "\n".join(errors)


@pytest.fixture
def daemon(new_daemon):
    """A running xinferd that is ready: .url .sock .get .post .cli .log .pid .hosts"""
    return new_daemon().start()


@pytest.fixture
def simulated(new_daemon, tmp_path):
    """A daemon, not started yet, whose engines are the real ones and `simulated`, with the devices
    GPU.0, NPU.0 (all sessions in one host) and CPU. simulated(**config): more keys of its file."""
    def make(**config):
        path = tmp_path / "simulated.json"
        config["engine_dir"] = os.path.join(build_dir(), "test", "engines-simulated")
        path.write_text(json.dumps(config))
        return new_daemon("--config", str(path))
    return make


@pytest.fixture(scope="session")
def pictures():
    """The folder with chelsea.png (a cat), astronaut.png (a person), coffee.png (a cup)."""
    return os.path.join(ROOT, "build", "deps", "pictures")


@pytest.fixture(scope="session")
def object_detector():
    """The zoo's object detector as a package file."""
    path = os.path.join(ROOT, "build", "zoo", "object-detector.xpkg")
    assert os.path.exists(path), "%s is missing: run  make zoo" % path
    return path
