"""Boxes of a photograph, by the files beside this one: python example.py PHOTO [SCORE]

Needs numpy, Pillow, and onnxruntime or openvino (or torch for model.pt2). Resizes
bilinearly, which is right where detector.json says so.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

if len(sys.argv) < 2:
    sys.exit(__doc__)
FOLDER = Path(__file__).parent
told = json.loads((FOLDER / 'detector.json').read_text(encoding='utf-8'))
photo = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert('RGB')
lowest = float(sys.argv[2]) if len(sys.argv) > 2 else 0.3
rule, graph = told['resize'], told['input']
old, scale = np.array(photo.size[::-1]), np.array([rule['height'], rule['width']])
fixed = np.array([graph['height'] or 0, graph['width'] or 0])  # 0: any size
ends = (scale.max() / old.max(), scale.min() / old.min())
factor = min([*ends, *(fixed / old)[fixed > 0]])
kept = np.maximum((old * factor + 0.5).astype(int), 1)
height, width = kept if rule['keep_ratio'] else np.where(fixed, fixed, scale)
matrix = (old[1] / width, 0, 0, 0, old[0] / height, 0)  # bilinear as OpenCV's resize
image = photo.transform(
    (int(width), int(height)), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
)
least = np.maximum((height, width), scale if rule['pad'] else 0)
divisor = rule['size_divisor'] or 1
padded = np.where(fixed, fixed, -(-least // divisor) * divisor)
images = np.zeros((graph['batch'] or 1, *padded, 3), np.uint8)
images[:, :height, :width] = np.asarray(image)
inputs = {'images': images, 'sizes': np.array([[height, width]] * len(images))}
if told['format'] == 'onnx':
    import onnxruntime

    session = onnxruntime.InferenceSession(str(FOLDER / 'model.onnx'))
    found = session.run(['boxes', 'scores', 'labels'], inputs)
elif told['format'] == 'openvino':
    import openvino

    exact = {'INFERENCE_PRECISION_HINT': 'f32'}  # some processors would take bfloat16
    net = openvino.Core().compile_model(FOLDER / 'model.xml', 'CPU', exact)
    found = [net(inputs)[name] for name in ('boxes', 'scores', 'labels')]
else:
    import torch

    net = torch.export.load(str(FOLDER / 'model.pt2')).module()
    tensors = [torch.from_numpy(value) for value in inputs.values()]
    found = [output.detach().numpy() for output in net(*tensors)]
for box, score, label in zip(*(output[0] for output in found), strict=True):
    if label >= 0 and score >= lowest:
        corners = (box * np.tile(old / (height, width), 2)[[1, 0, 3, 2]]).round(1)
        print(told['classes'][label], f'{score:.3f}', *corners.tolist())
