"""Why a float input or output of a model in ONNX's node tests is not checked."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """One float input and float output of one model.

    Attributes:
        operator: under test, with its domain unless that is the default one.
        x: formal name of the input.
        y: formal name of the output.
        model: name of the test.
        verdict: what `node_gradients` found.
        detail: the message.
    """

    operator: str
    x: str
    y: str
    model: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class Reason:
    """Why some pairs are not checked.

    Attributes:
        text: for the page.
        operators: a regular expression for all of the operator's name.
        x: one for the input.
        y: one for the output.
        models: one for the name of the model.
        detail: one that the message contains.
        wrong: whether it is about gradients that are wrong, else about missing ones.
    """

    text: str
    operators: str
    x: str = ".*"
    y: str = ".*"
    models: str = ".*"
    detail: str = ""
    wrong: bool = False

    def covers(self, pair: Pair) -> bool:
        """Return whether this is the reason."""
        return (
            self.wrong == (pair.verdict == "wrong")
            and bool(re.fullmatch(self.operators, pair.operator))
            and bool(re.fullmatch(self.x, pair.x))
            and bool(re.fullmatch(self.y, pair.y))
            and bool(re.fullmatch(self.models, pair.model))
            and bool(re.search(self.detail, pair.detail))
        )


WEIGHTS = "the gradient of weights is not covered: A is data, not a parameter"
PARAMETERS = "not covered for this parameter: it is a constant in classifiers"
SECOND = "only the first output is covered; the other ones are for training or for looking at"
TRAINING = "training mode is not covered: a classifier is exported for inference"
LOOP = "loops are not covered"
RANDOM = "the result is random"
NEWER = "an operator of opset 27 or 28; models of these opsets are refused"
DOMAIN = "an operator of another domain"
NONE_YET = "no formula"

REASONS: tuple[Reason, ...] = (
    # -- inputs -----------------------------------------------------------------------------
    Reason(
        WEIGHTS,
        "BatchNormalization|GroupNormalization|InstanceNormalization|LayerNormalization"
        "|RMSNormalization",
        "scale|Scale|B|bias|input_mean|input_var",
        detail="gradient of its input [1234]",
    ),
    Reason(PARAMETERS, "Clip", "min|max", detail="gradient of its input"),
    Reason(PARAMETERS, "Dropout", "ratio", detail="gradient of its input 1"),
    Reason(PARAMETERS, "Pad", "constant_value", detail="gradient of its input 2"),
    Reason(PARAMETERS, "RotaryEmbedding", "cos_cache|sin_cache", detail="gradient of its input"),
    Reason(PARAMETERS, "Resize|Upsample", "scales|roi", detail="must be constant"),
    Reason(
        "scales are constants of the straight-through gradient",
        "DequantizeLinear|DynamicQuantizeLinear",
        "x_scale|x",
        "y|y_scale",
        detail="is zero everywhere",
    ),
    # -- forms ------------------------------------------------------------------------------
    Reason(SECOND, "LayerNormalization", y="Mean|InvStdDev|all outputs"),
    Reason(TRAINING, "BatchNormalization|Dropout", detail="it is in training mode"),
    Reason(
        "a diagonal (an index twice in one operand) is not covered", "Einsum", detail="diagonal"
    ),
    Reason(
        "an output longer than what the windows cover",
        "ConvTranspose",
        detail="longer than what the windows cover",
    ),
    Reason("given output_shape", "MaxUnpool", detail="its output_shape is not covered"),
    Reason("a kept aspect ratio is not covered", "Resize", "X", detail="kept aspect ratio"),
    Reason(
        "onnx scales by the size of the output before it is rounded, onnxruntime by the real one,"
        " as the formula does",
        "Resize",
        models="test_resize_downsample_scales_(linear|cubic)_align_corners",
        detail="other outputs than given",
    ),
    Reason(
        "updates are put in place or added; multiplied or compared they are not covered",
        "ScatterElements|ScatterND",
        detail="reduction=(mul|min|max) is not covered",
    ),
    Reason(
        "a divisor is zero: the output is not a number there",
        "Mod",
        "B",
        models="test_mod_float_edge_cases_.*",
        detail="off by nan",
        wrong=True,
    ),
    Reason(
        "its definition gives Range vectors of one element, which onnxruntime refuses where their"
        " values are known",
        "AffineGrid",
        models=".*_expanded",
        detail="Input to 'Range' op should be scalars",
        wrong=True,
    ),
    Reason("cubic interpolation is not covered", "GridSample", detail="mode=cubic is not covered"),
    Reason("gates that look at the cell are not covered", "LSTM", detail="peepholes"),
    Reason("attribute mode came in opset 28", "SpaceToDepth", models=".*_[cd][rc][dr]_mode_.*"),
    # -- operators --------------------------------------------------------------------------
    Reason(RANDOM, "Bernoulli"),
    *(Reason(LOOP, name) for name in ("Loop", "Scan")),
    Reason(LOOP, "LinearAttention", models=".*_expanded"),
    *(Reason(NEWER, name) for name in ("CausalConvWithState", "LinearAttention", "SwiGLU")),
    Reason(DOMAIN, r"ai\.onnx\..*::.*"),
    Reason("the number of its results depends on values", "Unique"),
    *(Reason("no image goes in", name) for name in ("MelWeightMatrix", "Range")),
    Reason("makes a tensor from indices", "OneHot"),
    Reason("optional values are not covered", "OptionalGetElement"),
    *(Reason(NONE_YET, name) for name in ("CumProd", "DFT", "DeformConv", "Det")),
    *(Reason(NONE_YET, name) for name in ("RoiAlign", "STFT", "TensorScatter")),
)
