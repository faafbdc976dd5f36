"""Writes tests/cam/run_references.npz: maps of methods that run the model again, by two libraries.

The tests compare the CAM functions with these arrays, so that they need neither torch nor the
libraries. Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7, torchcam 0.5.0, numpy;
torchcam with ``--no-deps``, which leaves out much that is not needed here::

    pip install torch==2.13.0 grad-cam==1.5.7
    pip install --no-deps torchcam==0.5.0
    PYTHONPATH=. python tools/make_run_references.py

The classifier is small enough to be written again in NumPy (tests/cam/small_network.py): a
convolution, whose output is the target layer, ReLU, a linear layer, tanh, a linear layer. Noise is
ours, drawn from `SEED`, the same for every image, and handed to torchcam. Keys: what goes in
(``conv_weight`` ..., ``images``, ``classes``), ``{library}/{method}/raw`` and ``.../cam``,
``paper/smoothgradcam++/raw`` (the formula by torch, in float64), ``activations``, ``gradients``,
``curvature``, and ``finer{K}/scores``, ``.../classes``, ``.../weights`` by autograd. torchcam's
maps are those of the target layer's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.torch_models import import_with_torchvision

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "cam" / "run_references.npz"
COUNT, CHANNELS, SIZE, CLASSES = 3, 6, (11, 14), 5
SEED = 7
Array = NDArray[Any]

_grad_cam = import_with_torchvision("pytorch_grad_cam")
_targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
_torchcam = import_with_torchvision("torchcam.methods")


class Network(torch.nn.Module):  # type: ignore[misc]
    """The classifier; scores are before softmax."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        torch.manual_seed(11)
        self.conv = torch.nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.hidden = torch.nn.Linear(CHANNELS * 6 * 7, 8)
        self.head = torch.nn.Linear(8, CLASSES)
        with torch.no_grad():  # so that maps differ between classes, images and samples
            self.conv.weight *= 2
            self.conv.bias += 1  # Grad-CAM++ of channels with a negative sum divides by about 0
            self.hidden.weight *= 3
            self.head.weight *= 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return y ``(N, K)``."""
        return self.head(torch.tanh(self.hidden(torch.relu(self.conv(images)).flatten(1))))


def by_pytorch_grad_cam(
    network: Network, images: torch.Tensor, classes: Array
) -> dict[str, tuple[Array, Array]]:
    """Return raw and final maps of Score-CAM, Shapley-CAM and Finer-CAM."""
    wanted = [_targets.ClassifierOutputTarget(int(index)) for index in classes]
    best = network(images).argmax(1)
    found = {}
    for name, extractor in (
        ("scorecam", _grad_cam.ScoreCAM(network, [network.conv])),
        ("shapleycam", _grad_cam.ShapleyCAM(network, [network.conv])),
        ("finercam", _grad_cam.FinerCAM(network, [network.conv])),
    ):
        base = getattr(extractor, "base_cam", extractor)
        raw: list[Array] = []
        compute = base.get_cam_image

        def record(*args: Any, compute: Any = compute, raw: Any = raw, **kwargs: Any) -> Any:
            raw.append(np.asarray(compute(*args, **kwargs)))
            return raw[-1]

        base.get_cam_image = record
        # theirs compares the classes around the highest score unless the targets are given whole
        cams = extractor(images, None if name == "finercam" else wanted)
        found[name] = raw[0], np.asarray(cams)
    assert best.tolist() != classes.tolist()
    return found


def by_torchcam(
    network: Network, images: torch.Tensor, classes: Array
) -> dict[str, tuple[Array, Array]]:
    """Return raw and final maps of Score-CAM and its kin and Smooth Grad-CAM++, with our noise."""
    found = {}
    for name, extractor in (
        ("scorecam", _torchcam.ScoreCAM(network, "conv")),
        ("sscam", _torchcam.SSCAM(network, "conv")),
        ("iscam", _torchcam.ISCAM(network, "conv")),
        ("smoothgradcam++", _torchcam.SmoothGradCAMpp(network, "conv")),
    ):
        noisy = name in {"sscam", "smoothgradcam++"}
        if noisy:
            spread = torch.std(images, dim=(1, 2, 3), correction=0, keepdim=True)
            factor = extractor.std * (spread if name == "smoothgradcam++" else 1)
            extractor._distrib = Noise(extractor.num_samples, factor)
        maps = []
        for normalized in (False, True):
            extractor._relu = normalized  # so that raw maps keep their signs
            if noisy:
                extractor._distrib.again()
            network(images)
            (cam,) = extractor(classes.tolist(), normalized=normalized)
            maps.append(cam.detach().numpy().copy())
        extractor.remove_hooks()
        found[name] = maps[0], maps[1]
    return found


class Noise:
    """Stands in for torch's normal distribution: the noise of our generator, for every image."""

    def __init__(self, samples: int, factor: Any) -> None:
        """Take how often it will be asked, and what to multiply by."""
        self._samples, self._factor = samples, factor
        self._draws: Iterator[Array] | None = None

    def again(self) -> None:
        """Start the stream of numbers anew."""
        self._draws = None

    def sample(self, shape: torch.Size) -> torch.Tensor:
        """Return the noise of the next sample."""
        if self._draws is None:
            random = np.random.RandomState(SEED)
            self._draws = iter(random.standard_normal((self._samples, *shape[1:])))
        return (self._factor * torch.from_numpy(next(self._draws)).expand(shape)).float()


def by_the_paper(network: Network, images: torch.Tensor, classes: Array) -> Array:
    """Return raw maps of Smooth Grad-CAM++ in float64, with torchcam's constants."""
    wide = Network().double().eval()
    x = images.double()
    deviation = 0.3 * torch.std(x, dim=(1, 2, 3), correction=0, keepdim=True)
    draws = np.random.RandomState(SEED).standard_normal((4, *x.shape[1:]))
    found = [gradient(wide, x + deviation * torch.from_numpy(d), classes) for d in draws]
    first, second, third = (torch.stack([g**n for g in found]).mean(0) for n in (1, 2, 3))
    activations = wide.conv(x)
    total = activations.sum(dim=(2, 3), keepdim=True)
    a = second / (2 * second + total * third + 1e-8)
    weights = (a * torch.relu(first)).sum(dim=(2, 3), keepdim=True)
    raw: Array = (weights * activations).sum(1).detach().numpy()
    return raw


def gradient(network: Network, images: torch.Tensor, classes: Array) -> torch.Tensor:
    """Return dy/dA ``(N, C, h, w)``."""
    return derivatives(network, images, classes)[1]


def derivatives(
    network: Network, images: torch.Tensor, classes: Array
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return A, dy/dA and d(dy/dA . A)/dA with the A beside dy/dA held fixed."""
    a = network.conv(images).detach().requires_grad_()
    y = network.head(torch.tanh(network.hidden(torch.relu(a).flatten(1))))
    total = y[torch.arange(len(classes)), torch.from_numpy(classes)].sum()
    (g,) = torch.autograd.grad(total, a, create_graph=True)
    (curvature,) = torch.autograd.grad(g, a, grad_outputs=a.detach())
    return a.detach(), g.detach(), curvature


def finer(classes: int) -> dict[str, Array]:
    """Return random scores and the gradient of their target by autograd, in float64."""
    generator = torch.Generator().manual_seed(classes)
    scores = 3 * torch.randn(8, classes, generator=generator, dtype=torch.float64)
    scores[-1] -= 25 * (torch.arange(classes) > 0)  # compared classes of next to no probability
    chosen = torch.arange(8) % classes
    y = scores.float().double().requires_grad_()
    for row, c in enumerate(chosen.tolist()):
        others = [d for d in (y[row] - y[row, c]).abs().argsort().tolist() if d != c][:3]
        _targets.FinerWeightedTarget(c, others, 1)(y[row]).backward()
    return {
        "scores": scores.float().numpy(),
        "classes": chosen.numpy(),
        "weights": y.grad.numpy(),
    }


def main() -> None:
    """Write the file."""
    network = Network().eval()
    images = torch.randn(COUNT, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    images *= torch.tensor([1.0, 0.5, 2.0]).reshape(-1, 1, 1, 1)
    scores = network(images)
    classes = scores.argmax(1).numpy()
    classes[1] = scores[1].argsort()[-2]
    a, g, curvature = derivatives(network, images, classes)
    arrays: dict[str, Array] = {
        **{name.replace(".", "_"): w.detach().numpy() for name, w in network.named_parameters()},
        "images": images.numpy(),
        "classes": classes,
        "scores": scores.detach().numpy(),
        "activations": a.numpy(),
        "gradients": g.numpy(),
        "curvature": curvature.numpy(),
        "paper/smoothgradcam++/raw": by_the_paper(network, images, classes),
    }
    libraries = {
        "pytorch-grad-cam": by_pytorch_grad_cam(network, images, classes),
        "torchcam": by_torchcam(network, images, classes),
    }
    for library, found in libraries.items():
        for name, (raw, cam) in found.items():
            arrays |= {f"{library}/{name}/raw": raw, f"{library}/{name}/cam": cam}
    for count in (6, 3, 2):
        arrays |= {f"finer{count}/{name}": value for name, value in finer(count).items()}
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
