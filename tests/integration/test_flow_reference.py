"""The flow's steps against the libraries whose rules they follow: Pillow, OpenCV, NumPy.

They run flow_tool, which is built with the unit tests.
"""
import io
import json
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image

from daemon import build_dir

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(build_dir()) / "test" / "flow_tool"


def run_tool(tmp_path, flow, data, *args):
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    (tmp_path / "input").write_bytes(data)
    done = subprocess.run([TOOL, tmp_path / "flow.json", tmp_path / "input", *args],
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def tensor(answer, name):
    for t in answer["tensors"]:
        if t["name"] == name:
            return np.array(t["data"], np.float64).reshape(t["shape"])
    raise KeyError(name)


def photo(width, height, seed=1):
    """Smooth shapes and texture: what photographs have, without shipping one."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 24, 2), max(width // 24, 2), 3), np.uint8)
    base = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC), np.int16)
    noise = rng.normal(0, 12, base.shape)
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 92, **options})
    return out.getvalue()


def resize(tmp_path, data, width, height, **keys):
    flow = {"steps": [
        {"op": "decode_image", "in": "input", "out": "photo"},
        {"op": "resize", "in": "photo", "out": "small", "width": width, "height": height, **keys},
        {"op": "to_tensor", "in": "small", "out": "x", "dtype": "UINT8"}],
        "output": {"tensors": "x"}}
    return tensor(run_tool(tmp_path, flow, data), "x")[0]


SIZES = [((640, 427), (300, 300)), ((100, 80), (224, 192)), ((37, 501), (64, 64)),
         ((300, 200), (300, 200)), ((1, 1), (5, 7)), ((1920, 1080), (320, 320)),
         ((2000, 3), (10, 3))]


def across_then_down(image, target):
    """Pillow up to 12 always went across first; 13 may go down first, one rounding apart."""
    across = image.resize((target[0], image.height), Image.BILINEAR)
    return np.asarray(across.resize(target, Image.BILINEAR), np.float64)


@pytest.mark.parametrize("source, target", SIZES)
def test_area_bilinear_is_pillows_bilinear_to_the_last_bit(tmp_path, source, target):
    image = photo(*source)
    got = resize(tmp_path, png(image), *target, filter="area-bilinear")
    assert np.array_equal(got, across_then_down(image, target))
    at_once = np.asarray(image.resize(target, Image.BILINEAR), np.float64)
    assert np.abs(got - at_once).max() <= 1


@pytest.mark.parametrize("source, target", SIZES)
def test_nearest_is_pillows_nearest(tmp_path, source, target):
    image = photo(*source)
    want = np.asarray(image.resize(target, Image.NEAREST), np.float64)
    assert np.array_equal(resize(tmp_path, png(image), *target, filter="nearest"), want)


def four_neighbours(image, target):
    """Bilinear by its definition: half-pixel centres, edges repeated."""
    x = np.asarray(image, np.float64)
    for axis, n in ((0, target[1]), (1, target[0])):
        size = x.shape[axis]
        at = np.clip((np.arange(n) + 0.5) * size / n - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, size - 1)
        x = x.take(low, axis) * (1 - part) + x.take(high, axis) * part
    return x


@pytest.mark.parametrize("source, target", SIZES)
def test_bilinear_is_its_definition(tmp_path, source, target):
    image = photo(*source)
    got = resize(tmp_path, png(image), *target, filter="bilinear")
    error = got - four_neighbours(image, target)
    assert np.abs(error).max() <= 1
    # OpenCV's fixed point cuts off two sums in quarters before it rounds: up to -1/4 on average
    assert abs(error.mean()) <= 0.25


@pytest.mark.parametrize("source, target", SIZES)
def test_bilinear_is_opencvs_inter_linear(tmp_path, source, target):
    cv2 = pytest.importorskip("cv2")
    image = photo(*source)
    want = cv2.resize(np.asarray(image), target, interpolation=cv2.INTER_LINEAR).astype(float)
    got = resize(tmp_path, png(image), *target, filter="bilinear")
    assert np.abs(got - want).max() <= 1
    assert np.abs(got - want).mean() < 0.1


def test_crop_is_pillows_resize_of_the_middle(tmp_path):
    image = photo(640, 400)
    side = 400 * 0.875
    box = ((640 - side) / 2, (400 - side) / 2, (640 + side) / 2, (400 + side) / 2)
    want = np.asarray(image.resize((224, 224), Image.BILINEAR, box=box), np.float64)
    got = resize(tmp_path, png(image), 224, 224, filter="area-bilinear", mode="crop",
                 crop_fraction=0.875)
    assert np.abs(got - want).max() <= 1


def test_letterbox_is_pillows_resize_between_bars(tmp_path):
    image = photo(640, 400)
    got = resize(tmp_path, png(image), 320, 320, filter="area-bilinear", mode="letterbox",
                 pad=[10, 20, 30])
    assert np.array_equal(got[60:260], across_then_down(image, (320, 200)))
    for bar in (got[:60], got[260:]):
        assert (bar == [10, 20, 30]).all()


@pytest.mark.parametrize("source, target", [((1920, 1080), (300, 300)), ((4032, 3024), (300, 300)),
                                            ((1283, 721), (224, 224)), ((1000, 1000), (640, 640))])
def test_reduced_jpeg_decoding_stays_within_one_of_full_decoding(tmp_path, source, target):
    data = jpeg(photo(*source))
    full = Image.open(io.BytesIO(data)).convert("RGB")
    want = np.asarray(full.resize(target, Image.BILINEAR), np.float64)
    got = resize(tmp_path, data, *target, filter="area-bilinear")
    assert np.abs(got - want).mean() <= 1


@pytest.mark.parametrize("mode, options", [
    ("RGB", {}), ("RGB", {"subsampling": 0}), ("RGB", {"progressive": True}), ("L", {}),
    ("CMYK", {})])
def test_jpeg_pixels_are_pillows(tmp_path, mode, options):
    data = jpeg(photo(90, 70).convert(mode), **options)
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)
    got = resize(tmp_path, data, 90, 70, filter="nearest")
    assert np.abs(got - want).max() <= 1  # Pillow brings its own build of the same decoder


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_png_pixels_are_pillows(tmp_path, mode):
    data = png(photo(90, 70).convert(mode))
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB"), np.float64)
    assert np.array_equal(resize(tmp_path, data, 90, 70, filter="nearest"), want)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_pillows(tmp_path, orientation):
    from PIL import ImageOps
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(photo(96, 64), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    got = resize(tmp_path, data, *upright.size, filter="nearest")
    assert np.abs(got - np.asarray(upright, np.float64)).max() <= 1


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", ["RGB", "BGR", "GRAY"])
def test_to_tensor_is_numpys_arithmetic(tmp_path, layout, channels):
    image = photo(40, 30)
    n = 1 if channels == "GRAY" else 3
    mean, std = [123.675, 116.28, 103.53][:n], [58.395, 57.12, 57.375][:n]
    flow = {"steps": [
        {"op": "decode_image", "in": "input", "out": "photo"},
        {"op": "to_tensor", "in": "photo", "out": "x", "mean": mean, "std": std,
         "layout": layout, "channels": channels},
        {"op": "to_tensor", "in": "photo", "out": "h", "mean": mean, "std": std, "dtype": "FP16",
         "layout": layout, "channels": channels}],
        "output": {"tensors": ["x", "h"]}}
    x = np.asarray(image, np.float64)
    if channels == "BGR":
        x = x[:, :, ::-1]
    if channels == "GRAY":
        x = np.asarray(image.convert("L"), np.float64)[:, :, None]
    x = (x - mean) / std
    want = x[None] if layout == "NHWC" else x.transpose(2, 0, 1)[None]
    answer = run_tool(tmp_path, flow, png(image))
    assert np.allclose(tensor(answer, "x"), want, atol=1e-6)
    assert np.allclose(tensor(answer, "h"), want.astype(np.float16).astype(float), atol=2e-3)


def test_softmax_and_sigmoid_are_numpys(tmp_path):
    x = np.random.default_rng(2).normal(0, 8, (5, 33)).astype(np.float32)
    flow = {"steps": [
        {"op": "from_bytes", "in": "input", "out": "x", "dtype": "FP32", "shape": [5, 33]},
        {"op": "softmax", "in": "x", "out": "a"}, {"op": "sigmoid", "in": "x", "out": "b"}],
        "output": {"tensors": ["a", "b"]}}
    answer = run_tool(tmp_path, flow, x.tobytes())
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(1, keepdims=True))
    assert np.allclose(tensor(answer, "a"), e / e.sum(1, keepdims=True), rtol=1e-5, atol=1e-9)
    assert np.allclose(tensor(answer, "b"), 1 / (1 + np.exp(-wide)), rtol=1e-5, atol=1e-9)


def anchors(size, strides, low, high, ratios):
    """MediaPipe's SsdAnchorsCalculator with reduced lowest layer and interpolated scale."""
    out = []
    scales = list(np.linspace(low, high, len(strides))) + [1.0]
    for i, stride in enumerate(strides):
        shapes = [(scales[i], r) for r in ratios] + [(np.sqrt(scales[i] * scales[i + 1]), 1)]
        if i == 0:
            shapes = [(0.1, 1), (scales[0], 2), (scales[0], 0.5)]
        cells = -(-size // stride)
        for y in range(cells):
            for x in range(cells):
                for s, r in shapes:
                    out.append(((x + .5) / cells, (y + .5) / cells, s * r ** .5, s / r ** .5))
    return np.array(out)


def numpy_nms(boxes, scores, labels, iou_limit):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        for k in kept:
            if labels[k] != labels[i]:
                continue
            w = min(boxes[i, 2], boxes[k, 2]) - max(boxes[i, 0], boxes[k, 0])
            h = min(boxes[i, 3], boxes[k, 3]) - max(boxes[i, 1], boxes[k, 1])
            area = np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(boxes[k, 2:] - boxes[k, :2])
            both = max(w, 0) * max(h, 0)
            if both / (area - both) > iou_limit:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_the_detectors_decoding_is_numpys(tmp_path, seed):
    """zoo/object-detector/flow.json on random model outputs."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(0, 1.5, (1917, 4)).astype(np.float32)
    logits = rng.normal(-6, 2, (1917, 24)).astype(np.float32)
    codes.tofile(tmp_path / "codes")
    logits.tofile(tmp_path / "logits")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "labels.txt").write_text("".join(f"class {i}\n" for i in range(24)))
    flow = json.loads((ROOT / "zoo" / "object-detector" / "flow.json").read_text())
    for step in flow["steps"]:
        if step["op"] == "nms":
            step["max"], step["candidates"] = 1000, 4000
            limit, iou = step["score_threshold"], step["iou_threshold"]
    answer = run_tool(tmp_path, flow, png(photo(500, 400)), "-a", tmp_path, "-t",
                      f"{tmp_path}/codes:1,1917,4", "-t", f"{tmp_path}/logits:1,1917,24")

    a = anchors(300, [16, 32, 64, 128, 256, 512], 0.2, 0.95, [1, 2, 0.5, 3, 0.3333])
    assert len(a) == 1917
    c = codes.astype(np.float64)
    cy, cx = c[:, 0] / 10 * a[:, 3] + a[:, 1], c[:, 1] / 10 * a[:, 2] + a[:, 0]
    h, w = np.exp(c[:, 2] / 5) * a[:, 3], np.exp(c[:, 3] / 5) * a[:, 2]
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    labels = scores[:, 1:].argmax(1) + 1
    best = scores[np.arange(1917), labels]
    usable = best >= limit
    kept = numpy_nms(boxes[usable], best[usable], labels[usable], iou)
    want = [(int(labels[usable][k]), best[usable][k],
             np.clip(boxes[usable][k] * [500, 400, 500, 400], 0, [500, 400, 500, 400]))
            for k in kept]
    want = [x for x in want if (x[2][2:] > x[2][:2]).all()]
    got = answer["detections"]
    assert len(want) > 20
    assert [d["class"] for d in got] == [x[0] for x in want]
    assert got[0]["label"] == f"class {got[0]['class']}"
    assert np.allclose([d["score"] for d in got], [x[1] for x in want], atol=1e-4)
    assert np.allclose([d["box"] for d in got], [x[2] for x in want], atol=0.06)


def test_the_drawn_picture_shows_the_boxes(tmp_path):
    """Boxes change pixels where they are and nowhere else."""
    np.array([[100, 60, 300, 260]], np.float32).tofile(tmp_path / "boxes")
    np.array([[0.9]], np.float32).tofile(tmp_path / "scores")
    flow = {"steps": [
        {"op": "decode_image", "in": "input", "out": "photo"},
        {"op": "to_tensor", "in": "photo", "out": "x"},
        {"op": "infer", "in": "x", "out": ["b", "s"]},
        {"op": "nms", "in": ["b", "s", "photo"], "out": "d", "units": "pixels"},
        {"op": "draw", "in": ["photo", "d"], "out": "drawn", "quality": 100}],
        "output": {"detections": "d"}}
    image = Image.new("RGB", (400, 300), (128, 128, 128))
    run_tool(tmp_path, flow, png(image), "-t", f"{tmp_path}/boxes:1,4", "-t",
             f"{tmp_path}/scores:1,1", "-o", tmp_path / "drawn.jpg")
    drawn = np.asarray(Image.open(tmp_path / "drawn.jpg").convert("RGB"), np.int16)
    changed = np.abs(drawn - 128).max(2) > 24
    assert changed[60, 100:300].all() and changed[259, 100:300].all()
    assert changed[60:260, 100].all() and changed[60:260, 299].all()
    assert not changed[80:240, 120:280].any()
    outside = changed.copy()
    outside[30:264, 96:304] = False
    assert not outside.any()
