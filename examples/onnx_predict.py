"""Name the emotion in audio files by an exported model: python onnx_predict.py MODEL FILE...

The model comes from `emodarts export emodb --onnx emodb.onnx`; emodarts itself is not needed.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
classes, wanted = json.loads(facts["classes"]), int(facts["sample_rate"])
for path in sys.argv[2:]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != wanted:
        sys.exit(f"{path} has {rate} Hz; resample it to {wanted} Hz first")
    [[shares]] = session.run(None, {"waveform": samples.mean(axis=1)[np.newaxis]})
    print(path, classes[int(shares.argmax())], dict(zip(classes, shares.tolist(), strict=True)))
