"""Writes tests/evaluation/references.npz: metrics by the libraries that others use.

The tests compare the metrics with these arrays, so that they need none of the libraries.
Environment: Python 3.11, torch 2.13.0 (CPU), grad-cam 1.5.7, torchcam 0.5.0, quantus 0.6.0, scipy,
numpy; torchcam and quantus with ``--no-deps``, which leaves out much that is not needed here::

    pip install torch==2.13.0 grad-cam==1.5.7 scipy scikit-image pandas cachetools matplotlib
    pip install --no-deps torchcam==0.5.0 quantus==0.6.0
    PYTHONPATH=. python tools/make_evaluation_references.py

The classifier is small enough to be written again in NumPy: the mean of each cell of a 4 x 4 grid,
a linear layer, ReLU, a linear layer, softmax. Its map of a class is sum_c u_c x_c, put into [0, 1],
without ties, which the libraries break in ways of their own. Keys: what goes in (``hidden``,
``head``, ``directions``, ``images``, ``classes``, ``maps``, ``masks``) and ``{library}/{metric}``.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.torch_models import import_with_torchvision

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "evaluation" / "references.npz"
IMAGES, CLASSES, SIZE = 5, 3, (16, 20)
SAMPLES, RADIUS = 4, 0.1
Array = NDArray[Any]


class Network(torch.nn.Module):  # type: ignore[misc]
    """The classifier; scores are probabilities."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.hidden = torch.nn.Parameter(torch.randn(48, 8, generator=generator))
        self.head = torch.nn.Parameter(0.15 * torch.randn(8, CLASSES, generator=generator))
        self.directions = torch.nn.Parameter(torch.randn(CLASSES, 3, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities ``(N, K)``."""
        cells = torch.nn.functional.avg_pool2d(images, (SIZE[0] // 4, SIZE[1] // 4))
        return (torch.relu(cells.flatten(1) @ self.hidden) @ self.head).softmax(dim=1)

    def maps(self, images: torch.Tensor, classes: Array) -> Array:
        """Return maps ``(N, H, W)`` in [0, 1]."""
        weights = self.directions[torch.from_numpy(classes)][:, :, None, None]
        raw = (weights * images).sum(1)
        raw = raw - raw.amin(dim=(1, 2), keepdim=True)
        found: Array = (raw / raw.amax(dim=(1, 2), keepdim=True)).detach().numpy()
        return found


class Extractor:
    """What torchcam's metrics ask of a CAM extractor: the model, and maps made beforehand."""

    def __init__(self, model: torch.nn.Module, maps: Array) -> None:
        """Keep the model and its maps ``(N, H, W)``."""
        self.model = model
        self.maps = torch.from_numpy(maps)
        self._hooks_off = nullcontext

    def __call__(self, *_arguments: Any, **_options: Any) -> list[torch.Tensor]:
        """Return the maps, of one layer."""
        return [self.maps]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        """Return the maps of the only layer."""
        return cams[0]


def by_pytorch_grad_cam(
    network: Network, images: torch.Tensor, classes: Array, maps: Array
) -> dict[str, Array]:
    """Return drop, increase, ROAD without noise, coherency and complexity."""
    adcc = import_with_torchvision("pytorch_grad_cam.metrics.arcc")
    change = import_with_torchvision("pytorch_grad_cam.metrics.cam_mult_image")
    perturbation = import_with_torchvision("pytorch_grad_cam.metrics.perturbation_confidence")
    road = import_with_torchvision("pytorch_grad_cam.metrics.road")
    targets = import_with_torchvision("pytorch_grad_cam.utils.model_targets")
    wanted = [targets.ClassifierOutputTarget(int(index)) for index in classes]
    imputer = road.NoisyLinearImputer(noise=0)

    def averaged(remove: Any) -> Any:
        def metric(percentile: float) -> Any:
            return perturbation.PerturbationConfidenceMetric(remove(percentile, imputer))

        average = perturbation.AveragerAcrossThresholds(metric)
        return average(images, maps, wanted, network)

    def base_method(input_tensor: torch.Tensor, targets: Any) -> Array:
        return network.maps(input_tensor, classes)

    kept = torch.from_numpy(np.float32(maps[0] < np.percentile(maps[0], 40)))
    return {
        "drop": change.DropInConfidence()(images, maps, wanted, network),
        "increase": change.IncreaseInConfidence()(images, maps, wanted, network),
        "road-morf": averaged(perturbation.RemoveMostRelevantFirst),
        "road-lerf": averaged(perturbation.RemoveLeastRelevantFirst),
        "imputed": imputer(images[0], kept).numpy(),
        "coherency": adcc.Coherency()(images, maps, wanted, network, base_method),
        "complexity": adcc.Complexity()(maps),
    }


def by_torchcam(
    network: Network, images: torch.Tensor, classes: Array, maps: Array
) -> dict[str, Array]:
    """Return drop, increase, deletion and insertion; both curves with zeros as baseline."""
    metrics = import_with_torchvision("torchcam.metrics")
    found: dict[str, list[float]] = {"drop": [], "increase": [], "deletion": [], "insertion": []}
    for row, index in enumerate(classes.tolist()):
        extractor = Extractor(network, maps[row : row + 1])
        confidence = metrics.ClassificationMetric(extractor)
        curves = metrics.DeletionInsertionMetric(extractor, steps=20)
        for metric in (confidence, curves):
            metric.update(images[row : row + 1], index)
        found["drop"].append(confidence.summary()["avg_drop"])
        found["increase"].append(confidence.summary()["conf_increase"])
        found["deletion"].append(curves.summary()["deletion_auc"])
        found["insertion"].append(curves.summary()["insertion_auc"])
    return {name: np.array(values) for name, values in found.items()}


def by_quantus(
    network: Network, images: torch.Tensor, classes: Array, maps: Array, masks: Array, noise: Array
) -> dict[str, Array]:
    """Return sparseness, pointing game, relevance mass and maximum sensitivity."""
    quantus = import_with_torchvision("quantus")
    x = images.numpy()
    inputs = {"model": network, "x_batch": x, "y_batch": classes, "softmax": False}
    draws = iter(noise)

    def disturb(arr: Array, **_options: Any) -> Array:
        return np.asarray(arr + next(draws).reshape(arr.shape))

    def explain(model: Network, inputs: Array, targets: Array, **_options: Any) -> Array:
        return model.maps(torch.from_numpy(np.float32(inputs)), targets)[:, None]

    options = {"abs": False, "normalise": False, "disable_warnings": True}
    located = inputs | {"a_batch": maps[:, None], "s_batch": masks[:, None]}
    sensitivity = quantus.MaxSensitivity(nr_samples=SAMPLES, perturb_func=disturb, **options)
    found = {
        "sparseness": quantus.Sparseness(**options)(**inputs, a_batch=maps[:, None]),
        "pointing": quantus.PointingGame(**options)(**located),
        "energy": quantus.RelevanceMassAccuracy(**options)(**located),
        "max-sensitivity": sensitivity(**inputs, a_batch=maps[:, None], explain_func=explain),
    }
    return {name: np.array(values, np.float64) for name, values in found.items()}


def main() -> None:
    """Write the file."""
    spearmanr = import_with_torchvision("scipy.stats").spearmanr
    network = Network().eval()
    random = np.random.default_rng(5)
    x = random.normal(size=(IMAGES, 3, *SIZE)).astype(np.float32)
    x += random.normal(size=(IMAGES, 3, 1, SIZE[1])).astype(np.float32)
    images = torch.from_numpy(x)
    classes = network(images).argmax(1).numpy()
    classes[-1] = network(images).argmin(1)[-1]
    maps = network.maps(images, classes)
    masks = np.zeros((IMAGES, *SIZE), np.bool_)
    masks[:, 2:12, 9:18] = True
    masks[3] = maps[3] > 0.6
    reach = RADIUS * np.ptp(x, axis=(1, 2, 3), keepdims=True)
    unit = np.random.default_rng(0)
    noise = np.stack([reach * unit.uniform(-1, 1, x.shape[1:]) for _ in range(SAMPLES)])
    others = np.roll(maps, 1, axis=0)
    arrays: dict[str, Array] = {
        **{name: value.detach().numpy() for name, value in network.named_parameters()},
        "images": x,
        "classes": classes,
        "maps": maps,
        "masks": masks,
        "probabilities": network(images).detach().numpy(),
        "scipy/spearman": np.array(
            [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)]
        ),
    }
    libraries = {
        "pytorch-grad-cam": by_pytorch_grad_cam(network, images, classes, maps),
        "torchcam": by_torchcam(network, images, classes, maps),
        "quantus": by_quantus(network, images, classes, maps, masks, noise),
    }
    for library, found in libraries.items():
        arrays |= {f"{library}/{name}": value for name, value in found.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
