"""Train the tiny shape classifier: ``python tools/train_tiny.py`` (minutes on two CPU cores).

In: a seed. Out: models/tiny_shapes.onnx and models/tiny_shapes/ (pictures that it never saw in
training, with the box of each shape, labels, preprocessing, and what was measured). The pictures
and the weights follow from the seed; another PyTorch or processor changes the last bits of the
weights, so the committed network stays until it is trained anew on purpose.

Needs an environment of its own, not that of the package's tests::

    python -m venv .venv-train
    .venv-train/bin/pip install torch numpy onnx opencv-python-headless
    .venv-train/bin/python tools/train_tiny.py
"""

# without PyTorch the type checker knows none of its classes
# mypy: disable-error-code="import-not-found,misc,no-any-return"

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx_gradcam.preprocessing import Preprocessing
from tools.shapes import LABELS, SIZE, PlacedShape, draw, draw_random

MODELS = Path(__file__).resolve().parents[1] / "models"
SEED = 20
TRAINING_PICTURES = 9000
HELD_OUT_PICTURES = 1200
EPOCHS = 16
BATCH = 64
OPSET = 17

RECIPE = Preprocessing(color="RGB", resize=(SIZE, SIZE), scale=1 / 255, mean=(0.5,), std=(0.25,))

Pictures = npt.NDArray[np.uint8]
Placed = list[list[PlacedShape]]


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        """Initialise the layers at random."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(y)))


class Separable(nn.Module):
    """A depthwise convolution, squeeze-and-excite, and a pointwise convolution."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """Initialise the layers at random."""
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)
        self.pointwise = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, channels, H, W)`` to ``(N, out_channels, H, W)``."""
        x = functional.relu(self.norm1(self.depthwise(x)))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        x = x * torch.sigmoid(self.excite(gate))
        return functional.relu(self.norm2(self.pointwise(x)))


class TinyShapes(nn.Module):
    """Float32 ``(N, 3, 64, 64)`` to logits ``(N, 6)``; the last feature map is 16 x 16."""

    def __init__(self) -> None:
        """Initialise the layers at random."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 40, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(40)
        self.residual = Residual(40)
        self.separable1 = Separable(40, 64)
        self.separable2 = Separable(64, 96)
        self.head = nn.Linear(96, len(LABELS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations before the pooling, ``(N, 96, 16, 16)``."""
        x = functional.max_pool2d(functional.relu(self.norm1(self.conv1(x))), 2)
        x = functional.max_pool2d(functional.relu(self.norm2(self.conv2(x))), 2)
        features: torch.Tensor = self.separable2(self.separable1(self.residual(x)))
        return features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        pooled = functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.head(torch.flatten(pooled, 1))
        return logits


def draw_set(seed: int, count: int) -> tuple[Pictures, Placed]:
    """Return `count` pictures with one and two shapes in turn, and what is where."""
    rng = np.random.default_rng(seed)
    drawn = [draw_random(rng, 1 + index % 2) for index in range(count)]
    return np.stack([picture for picture, _ in drawn]), [placed for _, placed in drawn]


def to_tensor(pictures: Pictures) -> torch.Tensor:
    """Apply `RECIPE`: uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)``."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return ((pixels * RECIPE.scale - RECIPE.mean[0]) / RECIPE.std[0]).contiguous()


def targets_of(placed: Placed) -> torch.Tensor:
    """Return the share of each label: 1 for a lone shape, 1/2 each for two; ``(N, 6)``."""
    shares = torch.zeros(len(placed), len(LABELS))
    for row, shapes in zip(shares, placed, strict=True):
        for shape in shapes:
            row[LABELS.index(shape.label)] = 1 / len(shapes)
    return shares


def train(seed: int, epochs: int) -> TinyShapes:
    """Return the network, trained and in evaluation mode."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    pictures, placed = draw_set(seed, TRAINING_PICTURES)
    inputs, targets = to_tensor(pictures), targets_of(placed)
    model = TinyShapes()
    steps = epochs * -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for epoch in range(epochs):
        began, total = time.monotonic(), 0.0
        for rows in torch.randperm(len(inputs)).split(BATCH):
            batch = inputs[rows]
            if torch.rand(()) < 0.5:
                batch = batch.flip(3)
            loss = functional.cross_entropy(model(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        seconds = time.monotonic() - began
        print(f"epoch {epoch + 1}: loss {total / len(inputs):.3f}, {seconds:.0f} s", flush=True)
    return model.eval()


def measure(model: TinyShapes, seed: int) -> dict[str, float]:
    """Return accuracies and the Grad-CAM pointing game on pictures that were not trained on.

    Global average pooling and a linear layer end the network, so Grad-CAM is the sum of the
    feature map weighted by the head's row of the class, after a ReLU.
    """
    pictures, placed = draw_set(seed, HELD_OUT_PICTURES)
    with torch.no_grad():
        maps = torch.cat([model.features(part) for part in to_tensor(pictures).split(200)])
        logits = model.head(maps.mean((2, 3)))
        cams = torch.einsum("kc,nchw->nkhw", model.head.weight, maps).relu()
        cams = functional.interpolate(cams, (SIZE, SIZE), mode="bilinear", align_corners=False)
    found: dict[str, list[bool]] = {"top1_one_shape": [], "top2_two_shapes": []}
    hits: dict[str, list[bool]] = {"pointing_one_shape": [], "pointing_two_shapes": []}
    centre: list[bool] = []
    for row, cam, shapes in zip(logits, cams, placed, strict=True):
        wanted = {LABELS.index(shape.label) for shape in shapes}
        best = set(row.topk(len(shapes)).indices.tolist())
        found["top1_one_shape" if len(shapes) == 1 else "top2_two_shapes"].append(best == wanted)
        for shape in shapes:
            x0, y0, x1, y1 = shape.box
            y, x = divmod(int(cam[LABELS.index(shape.label)].argmax()), SIZE)
            key = "pointing_one_shape" if len(shapes) == 1 else "pointing_two_shapes"
            hits[key].append(x0 <= x < x1 and y0 <= y < y1)
            centre.append(x0 <= SIZE // 2 < x1 and y0 <= SIZE // 2 < y1)
    shares = {**found, **hits, "pointing_of_the_centre": centre}
    return {name: round(float(np.mean(values)), 4) for name, values in shares.items()}


def to_onnx(model: TinyShapes) -> bytes:
    """Return the network as an ONNX file with a dynamic batch and BatchNormalization kept."""
    stream = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIZE, SIZE),),
        stream,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    proto = onnx.load_from_string(stream.getvalue())
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def write_pictures(folder: Path, seed: int) -> None:
    """Write 24 annotated pictures, none chosen by its outcome: each label is in six of them."""
    rng = np.random.default_rng(seed)
    count = len(LABELS)
    singles = [[label] for label in LABELS * 2]
    pairs = [[LABELS[i], LABELS[(i + step) % count]] for step in (1, 2) for i in range(count)]
    annotations = {}
    for index, labels in enumerate(singles + pairs):
        picture, placed = draw(rng, labels)
        name = f"{index:02d}_{'_'.join(labels)}.png"
        cv2.imwrite(str(folder / name), picture[..., ::-1])
        annotations[name] = [{"label": shape.label, "box": list(shape.box)} for shape in placed]
    lines = [f"  {json.dumps(name)}: {json.dumps(boxes)}" for name, boxes in annotations.items()]
    (folder / "annotations.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    """Train, measure on held-out pictures and write everything."""
    parser = argparse.ArgumentParser(description="Train models/tiny_shapes.onnx.")
    parser.add_argument("--output", type=Path, default=MODELS, help="folder (default: models/)")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    folder = arguments.output / "tiny_shapes"
    folder.mkdir(parents=True, exist_ok=True)

    model = train(SEED, arguments.epochs)
    measured = measure(model, SEED + 1)
    print(json.dumps(measured))
    content = to_onnx(model)
    (arguments.output / "tiny_shapes.onnx").write_bytes(content)
    write_pictures(folder, SEED + 2)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / "preprocessing.json").write_text(json.dumps(RECIPE.to_dict(), indent=2) + "\n")
    (folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    print(f"wrote {arguments.output / 'tiny_shapes.onnx'}: {len(content)} bytes")


if __name__ == "__main__":
    main()
