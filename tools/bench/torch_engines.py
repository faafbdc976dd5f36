"""Workers on torch: what its users pick for Grad-CAM. Each gives scores and heat maps.

The class is the one of the highest score, which all but captum get from the run that they
explain. Heat maps come out at the images' size, stretched to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tools.bench.protocol import Task
from tools.bench.subjects import CHANNELS_LAST, TOKENS
from tools.bench.torch_nets import twin
from tools.bench.worker import Array, Prepare, Prepared
from tools.torch_models import import_with_torchvision


def forward(task: Task) -> Prepare:
    """Return the network's forward pass alone: the limit of the others."""
    network, _ = _twin(task)

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(x)

    return lambda images: Prepared({"torch": partial(run, torch.from_numpy(images))})


def grad_cam(task: Task) -> Prepare:
    """Return pytorch-grad-cam's GradCAM."""
    network, layer = _twin(task)
    library = import_with_torchvision("pytorch_grad_cam")
    cam = library.GradCAM(network, [layer], reshape_transform=ARRANGEMENTS[task.form])
    return partial(_prepared, "pytorch-grad-cam", lambda x: cam(x, None))


def torchcam(task: Task) -> Prepare:
    """Return torchcam's GradCAM, its maps brought to the images' size."""
    network, layer = _twin(task)
    library = import_with_torchvision("torchcam.methods")
    extract = library.GradCAM(network, layer, reshape_transform=ARRANGEMENTS[task.form])

    def run(x: Tensor) -> Array:
        scores = network(x)
        (maps,) = extract(scores.argmax(1).tolist(), scores)
        return _finished(maps, x)

    return partial(_prepared, "torchcam", run)


def captum(task: Task) -> Prepare:
    """Return captum's LayerGradCam; it asks for the class, hence the run before."""
    network, layer = _twin(task)
    if task.form != "map":
        raise NotImplementedError(
            f"LayerGradCam takes feature maps with the channels first, this layer gives {task.form}"
        )
    explain = import_with_torchvision("captum.attr").LayerGradCam(network, layer)

    def run(x: Tensor) -> Array:
        with torch.no_grad():
            classes = network(x).argmax(1)
        maps = explain.attribute(x, target=classes, relu_attributions=True)
        return _finished(maps.detach()[:, 0], x)

    return partial(_prepared, "captum", run)


def _twin(task: Task) -> tuple[Any, Any]:
    torch.set_num_threads(task.threads)
    return twin(task)


def _prepared(name: str, explain: Callable[[Tensor], Array], images: Array) -> Prepared:
    run = partial(explain, torch.from_numpy(images))
    return Prepared({name: run}, run)


def _finished(maps: Tensor, images: Tensor) -> Array:
    """Return maps ``(N, h, w)`` stretched, resized and stretched again, as all others do it."""
    size = images.shape[2:]
    resized = functional.interpolate(_stretched(maps)[:, None], size, mode="bilinear")
    finished: Array = _stretched(resized[:, 0]).numpy()
    return finished


def _stretched(maps: Tensor) -> Tensor:
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)


def _from_tokens(x: Tensor) -> Tensor:
    side = round((x.shape[1] - 1) ** 0.5)
    return x[:, 1:].transpose(1, 2).unflatten(2, (side, side))


ARRANGEMENTS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "map": None,
    TOKENS: _from_tokens,
    CHANNELS_LAST: lambda x: x.permute(0, 3, 1, 2),
}
"""How the layer's output lies -> what makes a map of it."""
