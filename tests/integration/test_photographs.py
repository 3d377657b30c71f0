"""The main job on real input: photographs go in, what is on them comes back.

The expected boxes were drawn by hand around the cat, the astronaut and the cup, in pixels.
"""
import io
import os

import numpy
import pytest
from PIL import Image

from daemon import Daemon

PHOTOGRAPHS = {
    "chelsea": ("Cat", (0, 0, 395, 300)),
    "astronaut": ("Person", (22, 15, 362, 512)),
    "coffee": ("Coffee cup", (172, 18, 410, 308)),
}


@pytest.fixture(scope="module")
def detector(object_detector):
    """One daemon with the zoo's object detector for the whole module."""
    d = Daemon()
    try:
        d.start()
        said = d.cli("load", object_detector)
        assert said.rc == 0, said
        yield d
    finally:
        d.close()


def overlap(a, b):
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (area(a) + area(b) - width * height)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def encoded(pictures, name, kind):
    """The photograph as PNG or JPEG bytes, and its content type."""
    with Image.open(os.path.join(pictures, name + ".png")) as picture:
        out = io.BytesIO()
        picture.convert("RGB").save(out, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return out.getvalue(), "image/" + kind.lower()


def best(answer):
    return max(answer["outputs"]["detections"], key=lambda d: d["score"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_finds_what_is_on_the_photograph(detector, pictures, name, kind):
    label, box = PHOTOGRAPHS[name]
    body, content_type = encoded(pictures, name, kind)
    answer = detector.post("/v1/infer/object-detector", body, headers={"Content-Type": content_type})
    assert answer.status == 200, answer
    found = best(answer.json())
    assert found["label"] == label
    assert 0.5 <= found["score"] <= 1
    assert overlap(found["box"], box) >= 0.8, found


def test_the_command_prints_a_table_and_draws_the_boxes(detector, pictures, tmp_path):
    original = os.path.join(pictures, "chelsea.png")
    drawn = tmp_path / "boxes.jpg"
    said = detector.cli("infer", "object-detector", original, "--picture", drawn)
    assert said.rc == 0, said
    assert "Cat" in said.stdout
    before = numpy.asarray(Image.open(original).convert("RGB"), dtype=int)
    with Image.open(drawn) as picture:
        assert picture.format == "JPEG"
        after = numpy.asarray(picture.convert("RGB"), dtype=int)
    assert after.shape == before.shape
    changed = (abs(after - before).max(axis=2) > 60).mean()
    assert 0.001 < changed < 0.2, "a box and a label cover some of the picture, not all: %g" % changed


def test_json_from_the_command_is_the_answer_of_the_server(detector, pictures):
    original = os.path.join(pictures, "coffee.png")
    said = detector.cli("infer", "object-detector", original, "--json")
    assert said.rc == 0, said
    with open(original, "rb") as f:
        answer = detector.post("/v1/infer/object-detector", f.read(),
                               headers={"Content-Type": "image/png"})
    assert best(said.json()) == best(answer.json())


def test_a_truncated_photograph_is_refused_and_the_next_one_served(detector, pictures):
    body, content_type = encoded(pictures, "chelsea", "PNG")
    headers = {"Content-Type": content_type}
    broken = detector.post("/v1/infer/object-detector", body[:len(body) // 2], headers=headers)
    assert broken.status in (400, 422), broken
    assert broken.headers["content-type"] == "application/problem+json"
    assert broken.json()["code"].startswith("XI-")
    assert best(detector.post("/v1/infer/object-detector", body, headers=headers).json())[
        "label"] == "Cat"
