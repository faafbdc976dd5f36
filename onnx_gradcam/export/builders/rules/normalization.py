"""Normalizations in ReduceMean, Mul, Add, Sqrt, Reciprocal, Pow, AveragePool."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.export.builders.rules.site import Rule, Site


def batch_normalization(at: Site) -> bool:
    """BatchNormalization(x) -> x s + t, s = scale / sqrt(var + epsilon), t = bias - mean s.

    s and t are folded where the statistics are known; at export they may be graph inputs.
    """
    rank = at.rank(at.x)
    if rank is None or rank < 2 or at.attribute("training_mode", 0) or any(at.node.output[1:]):
        return False
    epsilon = float(at.attribute("epsilon", 1e-5))
    names = at.node.input[1:5]
    values = [at.constant(name) for name in names]
    known = [value.astype(np.float64) for value in values if value is not None]
    if len(known) == len(names):
        scale, bias, mean, variance = known
        factor = scale / np.sqrt(variance + epsilon)
        channels = (-1, *[1] * (rank - 2))
        dtype = at.dtype(at.x)
        s = at.filled(factor.reshape(channels).astype(dtype))
        t = at.filled((bias - mean * factor).reshape(channels).astype(dtype))
    else:
        deviation = at.emit("Sqrt", at.emit("Add", names[3], epsilon))
        quotient = at.emit("Div", names[0], deviation)
        s = at.along_channels(quotient, rank)
        shift = at.emit("Sub", names[1], at.emit("Mul", names[2], quotient))
        t = at.along_channels(shift, rank)
    at.emit("Add", at.emit("Mul", at.x, s), t, into=at.y)
    return True


def layer_normalization(at: Site) -> bool:
    """LayerNormalization(x, s) -> y, mean, inv_std_dev = LayerNormalization(x, s, b).

    The builder's gradient reads both statistics, which are optional outputs, and wants a bias.
    Scale and bias are copied: the builder names their gradients after them, so that two nodes
    that share one would collide.
    """
    bias = at.input(2)
    if bias and at.output(1) and at.output(2):
        return False
    if not bias:
        shape = at.static_shape(at.input(1))
        scale_type = at.dtype(at.input(1))
        bias = (
            at.emit("Sub", at.input(1), at.input(1))
            if shape is None
            else at.filled(np.zeros(shape, scale_type))
        )
    mean = at.output(1) or f"{at.y}/mean"
    deviation = at.output(2) or f"{at.y}/inv_std_dev"
    scale, bias = (at.emit("Identity", name) for name in (at.input(1), bias))
    at.replace([at.x, scale, bias], [at.y, mean, deviation])
    return True


def rms_normalization(at: Site) -> bool:
    """RMSNormalization(x) -> scale x / sqrt(mean(x^2) + epsilon), over the axes from `axis` on."""
    rank = at.rank(at.x)
    if rank is None:
        return False
    axes = list(range(at.attribute("axis", -1) % rank, rank))
    at.emit("Mul", _scaled_to_one(at, at.x, axes), at.input(1), into=at.y)
    return True


def instance_normalization(at: Site) -> bool:
    """InstanceNormalization(x) -> scale (x - mean) / sqrt(var + epsilon) + bias, over space."""
    rank = at.rank(at.x)
    if rank is None or rank < 3:
        return False
    normal = _normalized(at, at.x, list(range(2, rank)))
    _affine(at, normal, rank)
    return True


def group_normalization(at: Site) -> bool:
    """GroupNormalization(x) -> the same over the channels of each group, too."""
    rank, groups = at.rank(at.x), at.attribute("num_groups")
    if rank is None or rank < 3:
        return False
    grouped = at.emit("Reshape", at.x, [0, groups, -1])
    normal = _normalized(at, grouped, [2])
    if at.opset < 21:  # scale and bias are per group
        scale, bias = (at.unsqueeze(name, [1]) for name in at.node.input[1:3])
        scaled = at.emit("Add", at.emit("Mul", normal, scale), bias)
        at.reshape_like(scaled, at.x, into=at.y)
    else:
        _affine(at, at.reshape_like(normal, at.x), rank)
    return True


def _normalized(at: Site, x: str, axes: list[int]) -> str:
    """Return (x - mean) / sqrt(var + epsilon) over some axes."""
    centred = at.emit("Sub", x, at.reduce("ReduceMean", x, axes, keepdims=True))
    return _scaled_to_one(at, centred, axes)


def _scaled_to_one(at: Site, x: str, axes: list[int]) -> str:
    """Return x / sqrt(mean(x^2) + epsilon) over some axes."""
    mean = at.reduce("ReduceMean", at.emit("Mul", x, x), axes, keepdims=True)
    epsilon = float(at.attribute("epsilon", 1e-5))
    deviation = at.emit("Sqrt", at.emit("Add", mean, epsilon))
    return at.emit("Mul", x, at.emit("Reciprocal", deviation))


def _affine(at: Site, x: str, rank: int) -> None:
    scale, bias = (at.along_channels(name, rank) for name in at.node.input[1:3])
    at.emit("Add", at.emit("Mul", x, scale), bias, into=at.y)


def local_response_normalization(at: Site) -> bool:
    """LRN(x) -> x (bias + alpha mean(x^2 over neighbouring channels))^-beta.

    The mean is an AveragePool over the channels, laid out as an axis of space, with the padding
    counted, as LRN divides by the size of the window at the edges, too.
    """
    shape, size = at.shape(at.x), at.attribute("size")
    if shape is None or len(shape) < 3 or not isinstance(shape[1], int):
        return False
    square = at.emit("Reshape", at.emit("Mul", at.x, at.x), [0, 1, shape[1], -1])
    pooled = at.emit(
        "AveragePool",
        square,
        kernel_shape=[size, 1],
        pads=[(size - 1) // 2, 0, size // 2, 0],
        strides=[1, 1],
        count_include_pad=1,
    )
    mean = at.reshape_like(pooled, at.x)
    scaled = at.emit("Mul", mean, float(at.attribute("alpha", 1e-4)))
    base = at.emit("Add", scaled, float(at.attribute("bias", 1.0)))
    at.emit("Mul", at.x, at.emit("Pow", base, -float(at.attribute("beta", 0.75))), into=at.y)
    return True


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
}
