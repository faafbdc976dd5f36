"""LSTM, GRU and RNN, step by step.

What the steps take from the sequence is one matrix product. Both directions share the nodes of a
step: the backward one reads the sequence from its end, and its results are turned back.

    X (T, N, I) ── MatMul W' ── + bias ── (T, D, N, gates H) ── Split into T steps
    step: (1, D, N, H) ── MatMul R' ── + part of X ── activations ── (1, D, N, H)

Sources: ONNX operator specifications LSTM-14, GRU-14, RNN-14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.export.expansion.activations import PARAMETERS, fused_activation
from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

_LONGEST = 128
"""So many steps are written out at most."""

_DEFAULTS = {
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "RNN": ("Tanh",),
}
"""The activations f, g, h of a direction where the node names none."""

_ACTIVATIONS = frozenset(
    {"Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"}
)
"""Those that are operators in every opset."""

Activation = Callable[[str], str]


@dataclass(frozen=True)
class _Layer:
    """A node, and what is known of it.

    Attributes:
        ctx: its context.
        steps: length of the sequence, T.
        backward: per direction, whether it starts at the end; D of them.
        size: of a hidden state, H.
        activations: f, g and h of the specification.
    """

    ctx: Context
    steps: int
    backward: tuple[bool, ...]
    size: int
    activations: list[Activation]

    @property
    def emit(self) -> Emitter:
        """Return where to write nodes."""
        return self.ctx.emit

    @property
    def batch_first(self) -> bool:
        """Return whether the batch comes before steps and directions, in and out."""
        return bool(self.ctx.attribute("layout", 0))

    def step(self, number: int) -> AbstractContextManager[None]:
        """Put the number of the step into the names of nodes."""
        name = self.ctx.node.name or next(filter(None, self.ctx.outputs))
        return self.emit.scope(f"{name.strip('/')}/step_{number}")

    def split(self, x: str, *gates: int) -> list[str]:
        """Return groups of so many gates each, ``(1, D, N, gates H)``."""
        return _split(self.emit, x, [count * self.size for count in gates], 3)


@expansion("LSTM", domain="")
def _lstm(ctx: Context) -> list[str]:
    """H = o h(C), C = f C' + i g(c); gates i, o, f, c are activations of X W' + H' R' + b.

    Raises:
        FormulaError: see `_layer`; or the gates look at the cell.
    """
    if ctx.has_input(7):
        raise FormulaError("its gates look at the cell (peepholes)")
    layer = _layer(ctx)
    emit, (f, g, h) = ctx.emit, layer.activations
    coupled = ctx.attribute("input_forget", 0)
    recurrent = emit.transpose(ctx.inputs[2], [0, 2, 1])
    hidden, cell, states = _initial(layer, 5), _initial(layer, 6), []
    for number, x in enumerate(_steps(layer, _projected(layer, _bias(layer, 0, 1)))):
        with layer.step(number):
            gates, candidate = layer.split(emit.add(x, emit.matmul(hidden, recurrent)), 3, 1)
            i, o, forget = layer.split(f(gates), 1, 1, 1)
            kept = emit.mul(emit.sub(1.0, i) if coupled else forget, cell)
            cell = emit.add(kept, emit.mul(i, g(candidate)))
            hidden = emit.mul(o, h(cell))
        states.append(hidden)
    return _outputs(layer, states, cell)


@expansion("GRU", domain="")
def _gru(ctx: Context) -> list[str]:
    """H = (1 - z) h + z H'; z, r = f(X W' + H' R' + b), h = g(X W' + (r H') R' + b).

    With ``linear_before_reset``, h = g(X W' + b + r (H' R' + b)).

    Raises:
        FormulaError: see `_layer`.
    """
    layer = _layer(ctx)
    emit, (f, g) = ctx.emit, layer.activations
    late = ctx.attribute("linear_before_reset", 0)
    recurrent = emit.transpose(ctx.inputs[2], [0, 2, 1])
    inner, bias = "", ""
    if late:
        projected, bias = _projected(layer, _bias(layer, 0)), _bias(layer, 1)
    else:
        projected = _projected(layer, _bias(layer, 0, 1))
        recurrent, inner = _split(emit, recurrent, [2 * layer.size, layer.size], 2)
    of_gates, of_candidate = (_steps(layer, part) for part in layer.split(projected, 2, 1))
    hidden, states = _initial(layer, 5), []
    for number, (x, y) in enumerate(zip(of_gates, of_candidate, strict=True)):
        with layer.step(number):
            product = emit.matmul(hidden, recurrent)
            if late:
                product = emit.add(product, bias) if bias else product
                product, seen = layer.split(product, 2, 1)
            z, r = layer.split(f(emit.add(x, product)), 1, 1)
            seen = emit.mul(r, seen) if late else emit.matmul(emit.mul(r, hidden), inner)
            candidate = g(emit.add(y, seen))
            hidden = emit.add(candidate, emit.mul(z, emit.sub(hidden, candidate)))
        states.append(hidden)
    return _outputs(layer, states)


@expansion("RNN", domain="")
def _rnn(ctx: Context) -> list[str]:
    """H = f(X W' + H' R' + b).

    Raises:
        FormulaError: see `_layer`.
    """
    layer = _layer(ctx)
    emit, (f,) = ctx.emit, layer.activations
    recurrent = emit.transpose(ctx.inputs[2], [0, 2, 1])
    hidden, states = _initial(layer, 5), []
    for number, x in enumerate(_steps(layer, _projected(layer, _bias(layer, 0, 1)))):
        with layer.step(number):
            hidden = f(emit.add(x, emit.matmul(hidden, recurrent)))
        states.append(hidden)
    return _outputs(layer, states)


# -- what is known ---------------------------------------------------------------------------------


def _layer(ctx: Context) -> _Layer:
    """Return what is known of a node.

    Raises:
        FormulaError: the length of its sequences is not known, differs, or is too large; gates are
            clipped; or its activations are not known.
    """
    steps = ctx.shape(ctx.inputs[0])[1 if ctx.attribute("layout", 0) else 0]
    if not isinstance(steps, int):
        raise FormulaError("the length of its sequence is not known at export")
    if steps > _LONGEST:
        raise FormulaError(
            f"its sequence has {steps} steps, and no more than {_LONGEST} are written out"
        )
    if ctx.has_input(4) and (ctx.constant(4, "sequence_lens") != steps).any():
        raise FormulaError("its sequences are of different length")
    if ctx.attribute("clip") is not None:
        raise FormulaError("its gates are clipped")
    backward = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    directions = backward[ctx.attribute("direction", "forward")]
    size = ctx.static_sizes(ctx.inputs[2], 2)[0]
    return _Layer(ctx, steps, directions, size, _activations(ctx, len(directions)))


def _activations(ctx: Context, directions: int) -> list[Activation]:
    """Return the activations of a direction; parameters are consumed in the order of their names.

    Raises:
        FormulaError: one is not known, or the directions have different ones.
    """
    given = [name.decode() for name in ctx.attribute("activations", [])]
    names = given or _DEFAULTS[ctx.node.op_type] * directions
    left = {name: iter(ctx.attribute(f"activation_{name}", [])) for name in ("alpha", "beta")}
    found: list[tuple[str, dict[str, float]]] = []
    for name in names:
        if name not in _ACTIVATIONS:
            raise FormulaError(f"its activation {name!r} is not known")
        values = {parameter: next(left[parameter], None) for parameter in PARAMETERS[name]}
        found.append((name, {k: v for k, v in values.items() if v is not None}))
    count = len(found) // directions
    if found != found[:count] * directions:
        raise FormulaError("its directions have different activations")

    def activation(name: str, values: dict[str, float]) -> Activation:
        return lambda x: fused_activation(ctx.emit, x, name, values)

    return [activation(name, values) for name, values in found[:count]]


# -- in and out ------------------------------------------------------------------------------------


def _bias(layer: _Layer, *halves: int) -> str:
    """Return the sum of halves of B (0: that of W, 1: of R), ``(D, 1, gates H)``; "" if none."""
    if not layer.ctx.has_input(3):
        return ""
    emit, bias = layer.emit, layer.ctx.inputs[3]
    half = layer.ctx.static_sizes(bias, 1)[0] // 2
    parts = [emit.slice(bias, [i * half], [(i + 1) * half], [1]) for i in halves]
    return emit.unsqueeze(emit.sum(parts), [1])


def _projected(layer: _Layer, bias: str) -> str:
    """Return X W' + bias, ``(T, D, N, gates H)``, in the order in which each direction reads it."""
    emit, (x, weight) = layer.emit, layer.ctx.inputs[:2]
    count = len(layer.backward)
    if layer.batch_first:
        x = emit.transpose(x, [1, 0, 2])
    size = layer.ctx.static_sizes(weight, 1)
    columns = emit.transpose(emit.reshape(weight, [count * size[0], size[1]]), [1, 0])
    product = emit.matmul(x, columns)
    if count == 1:
        apart = emit.unsqueeze(product, [1])
    else:
        apart = emit.transpose(emit.reshape(product, [0, 0, count, size[0]]), [0, 2, 1, 3])
    return _turned(layer, emit.add(apart, bias) if bias else apart)


def _turned(layer: _Layer, x: str) -> str:
    """Return ``(T, D, N, ...)`` with the steps of backward directions in reverse order."""
    emit, steps = layer.emit, layer.steps
    if len(layer.backward) == 1:
        return emit.reversed(x, 0, steps) if layer.backward[0] else x
    forward, backward = _split(emit, x, [1, 1], 1)
    return emit.concat([forward, emit.reversed(backward, 0, steps)], 1)


def _steps(layer: _Layer, x: str) -> list[str]:
    return _split(layer.emit, x, [1] * layer.steps, 0)


def _initial(layer: _Layer, index: int) -> str:
    """Return an initial state, ``(1, D, N, H)``; zeros ``(1, D, 1, H)`` where the node has none."""
    emit, ctx = layer.emit, layer.ctx
    if not ctx.has_input(index):
        return emit.filled(np.zeros((1, len(layer.backward), 1, layer.size)), ctx.inputs[0])
    state = ctx.inputs[index]
    return emit.unsqueeze(emit.transpose(state, [1, 0, 2]) if layer.batch_first else state, [0])


def _outputs(layer: _Layer, states: Sequence[str], cell: str = "") -> list[str]:
    """Return Y, Y_h and Y_c, as far as the node has them."""
    emit, first = layer.emit, layer.batch_first
    results = ["", "", ""]
    wanted = [bool(name) for name in layer.ctx.outputs]
    if wanted[0]:
        together = _turned(layer, emit.concat(states, 0))
        results[0] = emit.transpose(together, [2, 0, 1, 3]) if first else together
    for i, state in enumerate([states[-1], cell][: len(wanted) - 1], start=1):
        if wanted[i]:
            last = emit.squeeze(state, [0])
            results[i] = emit.transpose(last, [1, 0, 2]) if first else last
    return results


def _split(emit: Emitter, x: str, sizes: Sequence[int], axis: int) -> list[str]:
    """Return parts of given sizes along an axis; the sizes are an input from opset 13 on."""
    count = len(sizes)
    if emit.opset >= 13:
        return emit.nodes_with_outputs("Split", [x, emit.ints(sizes)], count, axis=axis)
    return emit.nodes_with_outputs("Split", [x], count, axis=axis, split=list(sizes))
