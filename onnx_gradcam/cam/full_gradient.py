"""FullGrad: the image and all biases of a network, each with how much the score owes to it.

It knows no target layer. The exported file holds the maps at each resolution that the network has
(`onnx_gradcam.export.full_gradient`); here they are brought to the image's size and added up.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.registry import Need, register
from onnx_gradcam.cam.resize import resize_linear


@register(
    "fullgrad",
    title="Full-Gradient Representation for Neural Network Visualization",
    paper="arXiv:1905.00780",
    needs=(Need.BIASES,),
    sees_activations=False,
)
def fullgrad(biases: Sequence[Maps]) -> Maps:
    """Return the sum over all maps of s(|x dy/dx|) and s(|b dy/dz|), enlarged to the image.

    b is what an operator adds to its output z, per channel; s stretches a channel to [0, 1].

    Source: Srinivas and Fleuret, arXiv:1905.00780, equation 3, with absolute values as in section
    5; stretched channel by channel, and before it is enlarged, as in pytorch-grad-cam 1.5.7.

    Args:
        biases: maps float32 ``(N, *spatial)``, stretched and summed over the channels in the file;
            the first at the image's size.

    Returns:
        float32 ``(N, *size)``, at the image's size.
    """
    size = biases[0].shape[1:]
    total = biases[0]
    for maps in biases[1:]:
        total = total + resize_linear(maps, size)
    return total
