"""Name the emotion in sound while it comes in: python onnx_stream.py MODEL FILE

The model comes from `emodarts export emodb --onnx stream.onnx --window 4 --hop 1`. Blocks of 20 ms
of a file stand for those of a microphone; each may have any length.
"""

import itertools
import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
classes, wanted = json.loads(facts["classes"]), int(facts["sample_rate"])
if soundfile.info(sys.argv[2]).samplerate != wanted:
    sys.exit(f"{sys.argv[2]} has another rate; resample it to {wanted} Hz first")
state = end = np.empty(0, np.float32)
window, hop = float(facts["window"]), float(facts["hop"])
start = seconds = 0.0
blocks = soundfile.blocks(sys.argv[2], blocksize=wanted // 50, dtype="float32", always_2d=True)
for chunk in itertools.chain((block.mean(axis=1) for block in blocks), [end]):
    seconds += len(chunk) / wanted
    found, state = session.run(None, {"chunk": chunk, "state": state})
    for shares in found:  # of each window that the chunk completes; mostly of none
        row = dict(zip(classes, shares.tolist(), strict=True))
        begin = min(start, max(seconds - window, 0.0))  # the last window ends with the sound
        print(f"{begin:.2f}", classes[int(shares.argmax())], json.dumps(row), flush=True)
        start += hop
