"""The prose of docs/evaluation.md, which tools/evaluate_models.py writes."""

AGREEMENT = {
    "deletion": "torchcam 0.5.0",
    "insertion": "torchcam 0.5.0 (with zeros as start)",
    "average-drop": "torchcam 0.5.0; pytorch-grad-cam 1.5.7 (which does not divide)",
    "increase": "torchcam 0.5.0, pytorch-grad-cam 1.5.7",
    "coherency": "pytorch-grad-cam 1.5.7",
    "complexity": "pytorch-grad-cam 1.5.7",
    "adcc": "(its three parts)",
    "road": "(its two parts)",
    "road-morf": "pytorch-grad-cam 1.5.7, without noise",
    "road-lerf": "pytorch-grad-cam 1.5.7, without noise",
    "sparseness": "Quantus 0.6.0",
    "max-sensitivity": "Quantus 0.6.0, same noise",
    "pointing": "Quantus 0.6.0",
    "energy": "Quantus 0.6.0 (relevance mass accuracy)",
    "randomisation": "SciPy (rank correlation)",
}
"""Metric -> the library whose numbers the tests hold it to."""

BEFORE = """
# Evaluation: how faithful are the heat maps?

`onnx-gradcam evaluate` ([command line](cli.md#evaluate)) and `onnx_gradcam.evaluation` measure
heat maps by the metrics of published papers, on NumPy, OpenCV and ONNX Runtime alone. This page
is written by `python tools/evaluate_models.py`.

```python
from pathlib import Path

import onnx_gradcam
from onnx_gradcam.evaluation import evaluate, read_samples

explainer = onnx_gradcam.load("model.cam.onnx")
samples = [s for photo in Path("photos").glob("*.jpg") for s in read_samples(explainer, photo)]
result = evaluate(explainer, samples, methods=["gradcam", "layercam", "noise"])
print(result.summary())
result.values["gradcam"]["deletion"]  # one value per image
```

Each metric is also a function of its own that takes any classifier, a callable from images `(N,
C, H, W)` to scores `(N, K)`: `deletion(predict, images, classes, maps).areas`.

## Metrics

{definitions}

The last column: the numbers agree to 5e-6 with frozen results of that library
(`tools/make_evaluation_references.py`).

- The *confidence* is the model's score where scores lie within 0 and 1, else its softmax (sigmoid
  for a single class).
- *Deletion*: pixels become 0 as the model takes them, the mean colour for models that are fed
  normalised images, black for models that normalise inside. *Insertion* starts from the image
  under a Gaussian blur (11 x 11, sigma 5). 20 steps; RISE has one per row of pixels (`--steps
  224`).
- *Drop, increase, coherency* multiply the image by the heat map; the same 0.
- *ROAD* at percentile p keeps the pixels below the p-th percentile of the map and imputes the
  rest from their neighbours, plus noise of 0.01. Where a map has many equal values (zeros after
  the ReLU) a percentile may keep none: then all become the image's mean, where pytorch-grad-cam
  solves a singular system.
- *Maximum sensitivity*: 10 images under uniform noise within 2 % of the image's range, the change
  relative to the map, as captum and Quantus do.
- *Pointing*: the first of equal maxima counts, no tolerance; a constant map misses.
- *Randomisation*: all weights are shuffled within their tensors, the model is exported again, and
  the same class explained. Shuffling keeps each tensor's scale, which a draw from the initial
  distribution would not; `onnx_gradcam.export.randomise` yields the stages in between too
  (cascading).
- A map that is constant orders no pixels and correlates with nothing: such images are left out
  and counted in brackets.

Two floors belong in every table. `noise`: random values on the target layer's grid, another for
each image, made a heat map; it does not look at the model. `centre`: always a bell in the middle.
A method that is not clearly better than both on a metric has shown nothing by it.

## Results

The highest score of each image is explained, or the annotated class. ImageNet photos: one each of
classes spread over the 1000. ROAD at the percentiles 20, 40, 60 and 80.
"""

AFTER = """
## How to read it

- The images are few: differences in the second decimal mean nothing. The floors show the scale of
  each metric.
- Most objects of these photos are in the middle: `centre` comes near Grad-CAM by ROAD on
  SqueezeNet, and is ahead by average drop and ADCC there and by deletion on MobileNetV2. The tiny
  shapes lie anywhere: there it is behind Grad-CAM by every metric of the model's score.
- Soft masks say little of a robust model: under `noise`, MobileNetV2 loses no more confidence than
  under Grad-CAM (average drop). Deletion, insertion and ROAD tell the two apart.
- One map under several names: behind a global average pooling and a linear layer `gradcam`,
  `hirescam`, `xgradcam` and `shapleycam` are the same, and `reciprocam` of a head without a last
  ReLU; so are `layercam` and `gradcamelementwise` behind a ReLU. The rows show it.
- On the tiny shapes, where classes are made of the same strokes, what tells a class from the next
  ones (`finercam`) is more faithful than what speaks for it: best by deletion, insertion and, with
  `occlusion`, ROAD and energy, for one run more. On photos of one plain object it is not.
- `eigencam`, `kpcacam` and `fem` do not look at the class: on EfficientNet-Lite0 their maps
  resemble those of the randomised model, or their negative, the most (0.38 to 0.57).
- `scorecam` is best by average drop and ADCC, which mask images as it does itself; by deletion,
  insertion and ROAD it is behind `gradcam`, for as many runs as there are channels.
- Metrics that mask the image ask the model about images unlike any it was trained on; ROAD is the
  one made to avoid that.
- *Coherency*, *complexity*, *sparseness* and *maximum sensitivity* ask nothing about the class:
  `centre` has perfect coherency and sensitivity. They mean something only beside a faithfulness
  metric.
- *Randomisation*: `noise` and `centre` score 1, they do not look at the model. Heat maps of a
  randomised model are often zero everywhere (no positive evidence for the class): those have no
  correlation and are counted in brackets.
- Pointing game of more photos and mosaics: [pointing-game.md](pointing-game.md).
"""
