#!/usr/bin/env python3
"""Makes the expected numbers anew, without any of xInfer: onnxruntime and numpy run Silero's own
streaming model (silero_vad.onnx of PyPI silero-vad 6.2.3) chunk by chunk, with state and context as
silero_vad/utils_vad.py of that package does it.

make_golden.py silero_vad.onnx conversation.s16le OUT.json   (needs: pip install onnxruntime numpy)
make_golden.py silero_vad.onnx conversation.wav OUT.json
"""
import json
import sys
import wave

import numpy as np
import onnxruntime

RATE, SIZE, CONTEXT = 16000, 512, 64


def samples_of(path):
    if not path.endswith(".wav"):
        return np.fromfile(path, "<i2")
    with wave.open(path) as w:
        assert (w.getframerate(), w.getnchannels(), w.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(w.readframes(w.getnframes()), "<i2")


def main(model, path, out):
    sound = samples_of(path).astype(np.float32) / 32768
    sound = np.pad(sound, (0, -len(sound) % SIZE))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    speech = []
    for at in range(0, len(sound), SIZE):
        chunk = np.concatenate([context, sound[at:at + SIZE]])
        answer, state = session.run(None, {"input": chunk[None], "state": state,
                                           "sr": np.array(RATE, np.int64)})
        speech.append(round(float(answer[0, 0]), 6))
        context = chunk[-CONTEXT:]
    lines = [", ".join(map(str, speech[i:i + 10])) for i in range(0, len(speech), 10)]
    with open(out, "w") as f:
        f.write('{"speech": [\n  %s\n]}\n' % ",\n  ".join(lines))
    json.load(open(out))
    print(out, len(speech))


if __name__ == "__main__":
    main(*sys.argv[1:])
