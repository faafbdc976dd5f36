"""One row for each form of LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.export.expansion.case import Array, Case, Value

T, N, H = 4, 2, 2
"""Steps, sequences, and size of a hidden state."""

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BOTH = {"direction": "bidirectional"}


def recurrent(
    op_type: str,
    name: str = "",
    *,
    bias: bool = False,
    lengths: Array | None = None,
    states: int = 0,
    peepholes: bool = False,
    steps: int = T,
    opset: int = 17,
    outputs: tuple[bool, ...] = (True,),
    definition: Callable[..., Array] | None = None,
    **attributes: Any,
) -> Case:
    """Return a case of random weights; so many initial states are graph inputs."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates, batch_first = GATES[op_type] * H, attributes.get("layout", 0)
    state = (N, directions, H) if batch_first else (directions, N, H)
    inputs: list[Value] = [
        (N, steps, 3) if batch_first else (steps, N, 3),
        (directions, gates, 3),
        (directions, gates, H),
        (directions, 2 * gates) if bias else None,
        lengths,
        *[state] * states,
    ]
    if peepholes:
        inputs += [*[None] * (2 - states), (directions, 3 * H)]
    return Case(
        f"{op_type}, {name}" if name else op_type,
        op_type,
        tuple(inputs),
        {"hidden_size": H, **attributes},
        domain="",
        opset=opset,
        outputs=outputs,
        variable=(0, *range(5, 5 + states)),
        batch=0 if batch_first else 1,
        definition=definition,
    )


def _rnn(x: Array, w: Array, r: Array, start: Array, *, last: bool) -> Array:
    """Y ``(N, T, 2, H)`` or the last states ``(N, 2, H)`` of an RNN whose batch is first."""
    y = np.zeros((*x.shape[:2], 2, r.shape[2]))
    state = start.copy()
    for direction, order in ((0, range(x.shape[1])), (1, reversed(range(x.shape[1])))):
        for t in order:
            total = x[:, t] @ w[direction].T + state[:, direction] @ r[direction].T
            y[:, t, direction] = state[:, direction] = np.tanh(total)
    return state if last else y


RECURRENT = (
    *(recurrent(op_type) for op_type in GATES),
    *(
        recurrent(op_type, "both directions", bias=True, states=1, outputs=(True, True), **BOTH)
        for op_type in ("GRU", "RNN")
    ),
    recurrent("LSTM", "both directions", bias=True, states=2, outputs=(True, True, True), **BOTH),
    *(
        recurrent(op_type, "backward, last state", outputs=(False, True), direction="reverse")
        for op_type in GATES
    ),
    *(recurrent(op_type, "opset 7", bias=True, opset=7, **BOTH) for op_type in GATES),
    *(recurrent(op_type, "opset 22", bias=True, opset=22, **BOTH) for op_type in GATES),
    recurrent("LSTM", "last cell", bias=True, outputs=(False, False, True)),
    recurrent("LSTM", "input and forget gate coupled", bias=True, states=2, input_forget=1),
    recurrent("GRU", "reset late", linear_before_reset=1),
    recurrent(
        "GRU", "reset late, both directions", bias=True, states=1, linear_before_reset=1, **BOTH
    ),
    recurrent("RNN", "one step", steps=1, states=1, **BOTH),
    recurrent("RNN", "lengths", lengths=np.array([T, T], np.int32)),
    recurrent("RNN", "LeakyRelu", activations=["LeakyRelu"], activation_alpha=[0.3]),
    recurrent("RNN", "Softsign", activations=["Softsign"] * 2, **BOTH),
    recurrent(
        "LSTM",
        "HardSigmoid",
        bias=True,
        activations=["HardSigmoid", "Tanh", "Softsign"] * 2,
        activation_alpha=[0.1, 0.1],
        activation_beta=[0.4, 0.4],
        **BOTH,
    ),
    recurrent("GRU", "Elu", activations=["Sigmoid", "Elu"], activation_alpha=[0.7]),
    recurrent(
        "RNN",
        "batch first",
        states=1,
        layout=1,
        definition=lambda *values: _rnn(*values, last=False),
        **BOTH,
    ),
    recurrent(
        "RNN",
        "batch first, last state",
        states=1,
        layout=1,
        outputs=(False, True),
        definition=lambda *values: _rnn(*values, last=True),
        **BOTH,
    ),
)
