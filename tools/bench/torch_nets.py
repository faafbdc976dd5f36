"""The torch twins of the models: the same weights, and the module that gives the target tensor.

Architectures of torchvision are built anew from their seed, the demonstration models from their
ONNX files, operator by operator.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from tools.bench.protocol import Task
from tools.bench.subjects import SUBJECTS
from tools.torch_models import export_torch, randomised

Tensors = dict[str, np.ndarray[Any, Any]]


def twin(task: Task) -> tuple[nn.Module, nn.Module]:
    """Return the network and its target module.

    Raises:
        LookupError: the model has no torch network here, or none with this layer.
    """
    subject = SUBJECTS.get(task.subject)
    if subject is None:
        raise LookupError(f"no torch network for {task.subject}")
    if subject.file is not None:
        return from_onnx(task.model, task.tensor)
    if task.layer not in subject.modules:
        raise LookupError(f"no module stands for layer {task.layer} of {task.subject}")
    network = made_of_modules(subject.name)
    return network, network.get_submodule(subject.modules[task.layer])


def made_of_modules(name: str) -> nn.Module:
    """Return a torchvision network in which the target tensor is the output of a module.

    DenseNet applies its last ReLU as a function, in place: a module in front of it would have its
    output overwritten.
    """
    network = randomised(name)
    if not name.startswith("densenet"):
        return network
    parts = OrderedDict(
        features=network.features,
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=network.classifier,
    )
    return nn.Sequential(parts).eval()


def write_onnx(name: str, path: Path) -> None:
    """Write a torchvision architecture as ONNX."""
    export_torch(randomised(name), torch.zeros(1, 3, 224, 224), path)


def from_onnx(path: str, target: str) -> tuple[nn.Module, nn.Module]:
    """Return the network of an ONNX file, and the module that computes a tensor of it.

    Raises:
        LookupError: it holds an operator that is not known here, or no such tensor.
    """
    model = onnx.load(path)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    root, graph = nn.Module(), fx.Graph()
    values: dict[str, fx.Node] = {
        info.name: graph.placeholder("image")
        for info in model.graph.input
        if info.name not in weights
    }
    made = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type not in MODULES:
            raise LookupError(f"no torch module for {node.op_type} of {path}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        tensors = {str(i): weights[n] for i, n in enumerate(node.input) if n in weights}
        module = MODULES[node.op_type](tensors, attributes)
        made[node.output[0]] = f"node{index}"
        root.add_module(made[node.output[0]], module)
        read = tuple(values[name] for name in node.input if name in values)
        values[node.output[0]] = graph.call_module(made[node.output[0]], read)
    graph.output(values[model.graph.output[0].name])
    network = fx.GraphModule(root, graph).eval()
    return network, network.get_submodule(made[target])


class Binary(nn.Module):  # type: ignore[misc]  # torch is not installed for checks
    """A function of two tensors as a module."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        """Keep the function."""
        super().__init__()
        self.function = function

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return its value."""
        return self.function(a, b)


def _filled(module: nn.Module, **tensors: np.ndarray[Any, Any] | None) -> nn.Module:
    state = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items() if v is not None}
    module.load_state_dict(state, strict=False)
    return module


def _conv(tensors: Tensors, attributes: dict[str, Any]) -> nn.Module:
    weight, bias = tensors["1"], tensors.get("2")
    group = attributes.get("group", 1)
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    same = (top, left) == (bottom, right)
    conv = nn.Conv2d(
        weight.shape[1] * group,
        weight.shape[0],
        weight.shape[2:],
        stride=attributes.get("strides", [1, 1]),
        padding=(top, left) if same else 0,
        groups=group,
        bias=bias is not None,
    )
    _filled(conv, weight=weight, bias=bias)
    return conv if same else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def _norm(tensors: Tensors, attributes: dict[str, Any]) -> nn.Module:
    scale, bias, mean, variance = (tensors[i] for i in "1234")
    norm = nn.BatchNorm2d(len(scale), eps=attributes.get("epsilon", 1e-5))
    return _filled(norm, weight=scale, bias=bias, running_mean=mean, running_var=variance)


def _gemm(tensors: Tensors, attributes: dict[str, Any]) -> nn.Module:
    weight = tensors["1"] if attributes.get("transB") else tensors["1"].T
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    return _filled(linear, weight=weight, bias=tensors["2"])


MODULES: dict[str, Callable[[Tensors, dict[str, Any]], nn.Module]] = {
    "Add": lambda _, __: Binary(operator.add),
    "BatchNormalization": _norm,
    "Clip": lambda tensors, _: nn.Hardtanh(float(tensors["1"]), float(tensors["2"])),
    "Conv": _conv,
    "Flatten": lambda _, attributes: nn.Flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, __: nn.AdaptiveAvgPool2d(1),
    "MaxPool": lambda _, a: nn.MaxPool2d(a["kernel_shape"], a["strides"]),
    "Mul": lambda _, __: Binary(operator.mul),
    "Relu": lambda _, __: nn.ReLU(),
    "Sigmoid": lambda _, __: nn.Sigmoid(),
}
"""Operator -> module of its constant inputs (position -> value) and attributes."""
