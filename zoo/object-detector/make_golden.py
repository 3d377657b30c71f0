#!/usr/bin/env python3
"""Makes golden/*.json anew, without any of xInfer: OpenVINO's Python API, numpy, Pillow.

make_golden.py MODEL.tflite LABELS.txt PICTURE.png...   (needs: pip install openvino numpy pillow)
The anchors are those of MediaPipe's SsdAnchorsCalculator with the options of its object detector.
"""
import json
import math
import os
import sys

import numpy as np
import openvino
from PIL import Image

SIDE, STRIDES, MIN_SCALE, MAX_SCALE = 300, (16, 32, 64, 128, 256, 512), 0.2, 0.95
RATIOS = (1, 2, 0.5, 3, 0.3333)
SHOWN, IOU = 0.4, 0.5


def scale(layer):
    return MIN_SCALE + (MAX_SCALE - MIN_SCALE) * layer / (len(STRIDES) - 1)


def sizes_of(layer):
    if layer == 0:
        return [(w * math.sqrt(r), w / math.sqrt(r)) for w, r in ((0.1, 1), (scale(0), 2), (scale(0), 0.5))]
    s = scale(layer)
    following = scale(layer + 1) if layer + 1 < len(STRIDES) else 1.0
    between = math.sqrt(s * following)
    return [(s * math.sqrt(r), s / math.sqrt(r)) for r in RATIOS] + [(between, between)]


def anchors():
    rows = []
    for layer, stride in enumerate(STRIDES):
        cells = math.ceil(SIDE / stride)
        for y in range(cells):
            for x in range(cells):
                rows += [((x + 0.5) / cells, (y + 0.5) / cells, w, h) for w, h in sizes_of(layer)]
    return np.array(rows)


def boxes_of(codes):
    a = anchors()
    y = codes[:, 0] / 10 * a[:, 3] + a[:, 1]
    x = codes[:, 1] / 10 * a[:, 2] + a[:, 0]
    h = np.exp(codes[:, 2] / 5) * a[:, 3]
    w = np.exp(codes[:, 3] / 5) * a[:, 2]
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def detect(model, labels, picture):
    small = np.asarray(picture.resize((SIDE, SIDE), Image.BILINEAR), np.float32)
    answer = model(small[None] / 127.5 - 1)
    by_rank = sorted((answer[o][0] for o in model.outputs), key=lambda t: t.shape[-1])
    boxes, scores = boxes_of(by_rank[0]), 1 / (1 + np.exp(-by_rank[1]))
    found = []
    for label in range(1, scores.shape[1]):
        kept = []
        for i in np.argsort(-scores[:, label]):
            if scores[i, label] < SHOWN:
                break
            if all(overlap(boxes[i], boxes[k]) <= IOU for k in kept):
                kept.append(i)
        found += [(float(scores[i, label]), labels[label], boxes[i]) for i in kept]
    w, h = picture.size
    return [{"label": name, "score": round(score, 3),
             "box": [round(float(np.clip(v, 0, 1)) * side, 1) for v, side in zip(box, (w, h, w, h))]}
            for score, name, box in sorted(found, key=lambda f: -f[0])]


def main():
    core = openvino.Core()
    model = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    labels = open(sys.argv[2]).read().split("\n")
    for path in sys.argv[3:]:
        name = os.path.splitext(os.path.basename(path))[0]
        out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", name + ".json")
        with open(out, "w") as f:
            found = detect(model, labels, Image.open(path).convert("RGB"))
            f.write('{"detections": [\n  %s\n]}\n' % ",\n  ".join(map(json.dumps, found)))
        print(out)


if __name__ == "__main__":
    main()
