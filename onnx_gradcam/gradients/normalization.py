"""Gradients of normalisations in inference mode, and of Softmax.

Sources: ONNX operator specifications BatchNormalization-15, GroupNormalization-21,
InstanceNormalization-22, LRN-13, LayerNormalization-17, LpNormalization-22,
MeanVarianceNormalization-13, RMSNormalization-23, Softmax-13, LogSoftmax-13.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from onnx_gradcam.gradients.broadcasting import unbroadcast
from onnx_gradcam.gradients.elementwise import absolute, divided_where_positive
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.reduction import reduced
from onnx_gradcam.gradients.registry import Context, FormulaError, Gradients, gradient, lowering
from onnx_gradcam.gradients.windows import window_sum


def along_channels(emit: Emitter, values: str, rank: int) -> str:
    """Return values ``(C,)`` in a shape that broadcasts over a tensor ``(N, C, ...)`` of `rank`."""
    return emit.reshape(values, [1, -1, *[1] * (rank - 2)] if rank > 1 else [-1])


@gradient("BatchNormalization", since=7)
def _batch_normalization(ctx: Context) -> Gradients:
    """dx = dy scale / sqrt(var + epsilon): mean and variance are constants.

    Per channel; per element where spatial is 0 (before opset 9): all have the shape of x[0].

    Raises:
        FormulaError: in training mode.
    """
    if ctx.attribute("training_mode", 0):
        raise FormulaError("it is in training mode")
    emit = ctx.emit
    x, scale, _, _, variance = ctx.inputs
    spread = emit.unary("Sqrt", emit.add(variance, ctx.attribute("epsilon", 1e-5)))
    factor = emit.cast(emit.div(scale, spread), emit.dtype(x))
    if ctx.attribute("spatial", 1):
        factor = along_channels(emit, factor, len(ctx.shape(x)))
    return [emit.mul(ctx.dy, factor)]


# -- by statistics of the input ----------------------------------------------------------------


@dataclass(frozen=True)
class Standardized:
    """xhat = (x - mean) / d, d = sqrt(var + epsilon), by mean and variance over some axes.

    Where x is not centred, there is no mean, and the variance is a mean square.
    """

    emit: Emitter
    xhat: str
    reciprocal: str
    axes: list[int]
    centred: bool

    @classmethod
    def of(
        cls, emit: Emitter, x: str, axes: list[int], epsilon: float, *, centred: bool = True
    ) -> Standardized:
        """Compute xhat and 1 / d from x."""
        if centred:
            x = emit.sub(x, emit.reduce_mean(x, axes))
        variance = emit.reduce_mean(emit.mul(x, x), axes)
        reciprocal = emit.unary("Reciprocal", emit.unary("Sqrt", emit.add(variance, epsilon)))
        return cls(emit, emit.mul(x, reciprocal), reciprocal, axes, centred)

    def gradient(self, g: str) -> str:
        """Return dL/dx from g = dL/dxhat: (g - mean(g) - xhat mean(g xhat)) / d.

        Without mean(g) where x is not centred.
        """
        emit = self.emit
        if self.centred:
            g = emit.sub(g, emit.reduce_mean(g, self.axes))
        share = emit.reduce_mean(emit.mul(g, self.xhat), self.axes)
        return emit.mul(emit.sub(g, emit.mul(self.xhat, share)), self.reciprocal)


def layer_normalization(
    emit: Emitter, dy: str, x: str, scale: str, axes: list[int], epsilon: float
) -> str:
    """Return dx of y = scale xhat + bias, with xhat as in `Standardized`."""
    return Standardized.of(emit, x, axes, epsilon).gradient(emit.mul(dy, scale))


@gradient("LayerNormalization", since=17)
def _layer_normalization(ctx: Context) -> Gradients:
    return _normalized_from_axis(ctx, centred=True)


@gradient("RMSNormalization", since=23)
def _rms_normalization(ctx: Context) -> Gradients:
    return _normalized_from_axis(ctx, centred=False)


def _normalized_from_axis(ctx: Context, *, centred: bool) -> Gradients:
    """y = scale xhat + bias: dscale = dy xhat and dbias = dy, summed where they were stretched."""
    emit, (x, scale, *bias), y = ctx.emit, ctx.inputs, ctx.outputs[0]
    rank = len(ctx.shape(x))
    axes = list(range(ctx.attribute("axis", -1) % rank, rank))
    normal = Standardized.of(emit, x, axes, ctx.attribute("epsilon", 1e-5), centred=centred)
    dx = normal.gradient(emit.mul(ctx.dy, scale)) if ctx.wanted[0] else None
    dscale = dbias = None
    if ctx.wanted[1]:
        dscale = unbroadcast(ctx, emit.mul(ctx.dy, normal.xhat), scale, y)
    if bias and ctx.wanted[2]:
        dbias = unbroadcast(ctx, ctx.dy, bias[0], y)
    return [dx, dscale, dbias]


@gradient("InstanceNormalization")
def _instance_normalization(ctx: Context) -> Gradients:
    """Over the axes of space, y = scale xhat + bias per channel."""
    emit, (x, scale, _) = ctx.emit, ctx.inputs
    rank = len(ctx.shape(x))
    normal = Standardized.of(emit, x, list(range(2, rank)), ctx.attribute("epsilon", 1e-5))
    dx = None
    if ctx.wanted[0]:
        dx = normal.gradient(emit.mul(ctx.dy, along_channels(emit, scale, rank)))
    return [dx, *_per_channel(ctx, normal.xhat)]


def _per_channel(ctx: Context, xhat: str) -> Gradients:
    """Return dscale = sum(dy xhat) and dbias = sum(dy) over all axes but the channels'."""
    axes = [axis for axis in range(len(ctx.shape(ctx.inputs[0]))) if axis != 1]
    dscale = dbias = None
    if ctx.wanted[1]:
        dscale = ctx.emit.reduce_sum(ctx.emit.mul(ctx.dy, xhat), axes, keepdims=False)
    if ctx.wanted[2]:
        dbias = ctx.emit.reduce_sum(ctx.dy, axes, keepdims=False)
    return [dscale, dbias]


@gradient("GroupNormalization", since=18, until=20)
def _group_normalization_by_group(ctx: Context) -> Gradients:
    """One scale and bias per group."""
    normal, dy = _standardized_groups(ctx), _grouped(ctx, ctx.dy)
    g = ctx.emit.mul(dy, ctx.emit.reshape(ctx.inputs[1], [1, -1, 1]))
    return [ctx.emit.reshape_like(normal.gradient(g), ctx.inputs[0])]


@gradient("GroupNormalization", since=21)
def _group_normalization_by_channel(ctx: Context) -> Gradients:
    """One scale and bias per channel."""
    emit, (x, scale, _) = ctx.emit, ctx.inputs
    normal = _standardized_groups(ctx)
    dx = None
    if ctx.wanted[0]:
        g = emit.mul(ctx.dy, along_channels(emit, scale, len(ctx.shape(x))))
        dx = emit.reshape_like(normal.gradient(_grouped(ctx, g)), x)
    xhat = emit.reshape_like(normal.xhat, x) if ctx.wanted[1] else ""
    return [dx, *_per_channel(ctx, xhat)]


def _grouped(ctx: Context, value: str) -> str:
    """Return a tensor ``(N, C, ...)`` as ``(N, groups, -1)``."""
    return ctx.emit.reshape(value, [0, ctx.attribute("num_groups"), -1])


def _standardized_groups(ctx: Context) -> Standardized:
    epsilon = ctx.attribute("epsilon", 1e-5)
    return Standardized.of(ctx.emit, _grouped(ctx, ctx.inputs[0]), [2], epsilon)


@gradient("MeanVarianceNormalization", since=9)
def _mean_variance_normalization(ctx: Context) -> Gradients:
    """y = c / s, c = x - mean, s = d + 1e-9, d the standard deviation over the axes.

    dx = (dy - mean(dy) - c/d mean(dy y)) / s; c/d counts as 0 where all of c is 0.
    """
    emit, x, y, dy = ctx.emit, ctx.inputs[0], ctx.outputs[0], ctx.dy
    rank = len(ctx.shape(x))
    axes = sorted(axis % rank for axis in ctx.attribute("axes", [0, 2, 3]))
    centred = emit.sub(x, emit.reduce_mean(x, axes))
    deviation = emit.unary("Sqrt", emit.reduce_mean(emit.mul(centred, centred), axes))
    direction = divided_where_positive(emit, centred, deviation)
    projection = emit.mul(direction, emit.reduce_mean(emit.mul(dy, y), axes))
    rest = emit.sub(emit.sub(dy, emit.reduce_mean(dy, axes)), projection)
    return [emit.div(rest, emit.add(deviation, 1e-9))]


@gradient("LpNormalization")
def _lp_normalization(ctx: Context) -> Gradients:
    """y = x / |x|: dx = (dy - t sum(dy y)) / |x|, t = y for p = 2 and sign(x) for p = 1.

    Nothing where all of x is zero.
    """
    emit, x, y = ctx.emit, ctx.inputs[0], ctx.outputs[0]
    axes = [ctx.attribute("axis", -1) % len(ctx.shape(x))]
    total = emit.reduce_sum(emit.mul(ctx.dy, y), axes)
    if ctx.attribute("p", 2) == 2:
        length, part = reduced(emit, "ReduceL2", x, axes), emit.mul(y, total)
    else:
        length, part = reduced(emit, "ReduceL1", x, axes), absolute(emit, total, x)
    return [divided_where_positive(emit, emit.sub(ctx.dy, part), length)]


@gradient("LRN")
def _lrn(ctx: Context) -> Gradients:
    """y = x s^-b, s = k + a/n sum(x^2) over n neighbouring channels.

    dx_i = dy_i s_i^-b - 2 a b/n x_i sum_j dy_j x_j s_j^(-b-1), over the j whose window holds i.
    """
    emit, x, dy = ctx.emit, ctx.inputs[0], ctx.dy
    size = ctx.attribute("size")
    alpha, beta = ctx.attribute("alpha", 1e-4), ctx.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = _window_sum(ctx, emit.mul(x, x), size, before, after)
    s = emit.add(emit.mul(squares, alpha / size), ctx.attribute("bias", 1.0))
    damped = emit.mul(dy, emit.pow(s, -beta))
    inner = emit.div(emit.mul(damped, x), s)
    coupling = _window_sum(ctx, inner, size, after, before)
    return [emit.sub(damped, emit.mul(emit.mul(x, coupling), 2 * alpha * beta / size))]


def _window_sum(ctx: Context, value: str, size: int, before: int, after: int) -> str:
    """Return sums over `size` neighbouring channels, as an average pooling of channels.

    Raises:
        FormulaError: the number of channels is not known at export.
    """
    emit, shape = ctx.emit, ctx.shape(ctx.inputs[0])
    channels = shape[1]
    if not isinstance(channels, int):
        raise FormulaError("the number of channels is not known at export")
    plane = emit.reshape(value, [0, 1, channels, -1])
    padded = emit.pad(plane, [0, 0, before, 0, 0, 0, after, 0])
    return emit.reshape_like(window_sum(emit, padded, [size, 1]), ctx.inputs[0])


def softmax(emit: Emitter, dy: str, y: str, axes: list[int]) -> str:
    """dx = y (dy - sum(dy y))."""
    return emit.mul(y, emit.sub(dy, emit.reduce_sum(emit.mul(dy, y), axes)))


def log_softmax(emit: Emitter, dy: str, y: str, axes: list[int]) -> str:
    """dx = dy - exp(y) sum(dy)."""
    return emit.sub(dy, emit.mul(emit.unary("Exp", y), emit.reduce_sum(dy, axes)))


_SOFTMAX = {"Softmax": softmax, "LogSoftmax": log_softmax}


@gradient("Softmax", "LogSoftmax", until=12)
def _softmax_flattened(ctx: Context) -> Gradients:
    """Before opset 13 all axes from `axis` on (default 1) are normalised together."""
    rank = len(ctx.shape(ctx.inputs[0]))
    axes = list(range(ctx.attribute("axis", 1) % rank, rank))
    return [_SOFTMAX[ctx.node.op_type](ctx.emit, ctx.dy, ctx.outputs[0], axes)]


@gradient("Softmax", "LogSoftmax", since=13)
def _softmax_axis(ctx: Context) -> Gradients:
    """Where the model replaces NaN (the softmax of a row that is all -inf), no gradient is NaN."""
    axis = ctx.attribute("axis", -1) % len(ctx.shape(ctx.inputs[0]))
    emit, y = ctx.emit, ctx.outputs[0]
    if _is_guarded(ctx, y):
        y = emit.where(emit.node("IsNaN", [y], dtype=TensorProto.BOOL), 0.0, y)
    return [_SOFTMAX[ctx.node.op_type](emit, ctx.dy, y, [axis])]


def _is_guarded(ctx: Context, y: str) -> bool:
    """Return whether a reader of y, or of a Cast of it, puts something else in its place."""
    readers = ctx.readers(y)
    casts = [node.output[0] for node in readers if node.op_type == "Cast"]
    behind = [node for name in casts for node in ctx.readers(name)]
    return any(node.op_type in {"IsNaN", "Where"} for node in (*readers, *behind))


@lowering("SoftmaxGrad_13", "LogSoftmaxGrad_13")
def _lower_softmax(ctx: Context) -> list[str]:
    dy, y = ctx.inputs
    axis = ctx.attribute("axis", -1) % len(ctx.shape(y))
    return [_SOFTMAX[ctx.node.op_type.removesuffix("Grad_13")](ctx.emit, dy, y, [axis])]


@lowering("SoftmaxGrad", "LogSoftmaxGrad")
def _lower_softmax_flattened(ctx: Context) -> list[str]:
    dy, y = ctx.inputs
    rank = len(ctx.shape(y))
    axes = list(range(ctx.attribute("axis", 1) % rank, rank))
    return [_SOFTMAX[ctx.node.op_type.removesuffix("Grad")](ctx.emit, dy, y, axes)]


@lowering("LayerNormalizationGrad")
def _lower_layer_normalization(ctx: Context) -> list[str]:
    """Recompute mean and deviation from x: the forward graph keeps neither as an output."""
    dy, x, scale = ctx.inputs[:3]
    rank = len(ctx.shape(x))
    axes = list(range(ctx.attribute("axis", -1) % rank, rank))
    epsilon = ctx.attribute("epsilon", 1e-5)
    return [layer_normalization(ctx.emit, dy, x, scale, axes, epsilon)]
