"""The architectures of torchvision and transformers in the zoo.

torchvision: a row is ``(name, side of the input in pixels, options)``. transformers: ``(class
without "ForImageClassification", side, options of its configuration)``.
"""

from __future__ import annotations

from typing import Any

_Rows = list[tuple[str, int, dict[str, Any]]]

_SWIN_TRANSFORMER = {
    "patch_size": [4, 4],
    "embed_dim": 24,
    "depths": [2, 2, 2],
    "num_heads": [2, 4, 8],
    "window_size": [4, 4],
}

TORCHVISION: dict[str, _Rows] = {
    "alexnet": [("alexnet", 224, {})],
    "squeezenet": [("squeezenet1_0", 64, {}), ("squeezenet1_1", 64, {})],
    "googlenet": [("googlenet", 64, {"init_weights": False, "aux_logits": False})],
    "mnasnet": [("mnasnet0_5", 64, {})],
    "shufflenet": [("shufflenet_v2_x0_5", 64, {})],
    "mobilenet": [("mobilenet_v2", 64, {"width_mult": 0.35}), ("mobilenet_v3_small", 64, {})],
    "efficientnet": [("efficientnet_b0", 64, {})],
    "regnet": [("regnet_y_400mf", 64, {})],
    "maxvit": [
        (
            "MaxVit",
            64,
            {
                "input_size": (64, 64),
                "stem_channels": 16,
                "partition_size": 2,
                "block_channels": [16, 32, 48, 64],
                "block_layers": [1, 1, 1, 1],
                "head_dim": 8,
                "stochastic_depth_prob": 0.0,
            },
        )
    ],
    "swin": [
        ("SwinTransformer", 64, _SWIN_TRANSFORMER),
        ("swin_v2_t", 64, {}),
    ],
    "vit": [
        (
            "VisionTransformer",
            64,
            {
                "image_size": 64,
                "patch_size": 16,
                "num_layers": 3,
                "num_heads": 3,
                "hidden_dim": 48,
                "mlp_dim": 96,
            },
        )
    ],
}

_VIT = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}
_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
_SWIN = {
    "image_size": 64,
    "embed_dim": 24,
    "depths": [2, 2, 2],
    "num_heads": [2, 4, 6],
    "window_size": 4,
}

TRANSFORMERS: dict[str, _Rows] = {
    "vit": [("ViT", 64, _VIT), ("ViTMSN", 64, _VIT), ("IJepa", 64, _VIT)],
    "deit": [("DeiT", 64, _VIT), ("DeiTWithTeacher", 64, _VIT)],
    "beit": [("Beit", 64, _VIT), ("Data2VecVision", 64, _VIT)],
    "dinov2": [("Dinov2", 64, _VIT), ("Dinov2WithRegisters", 64, _VIT)],
    "siglip": [("Siglip", 64, {"vision_config": _VIT})],
    "clip": [("CLIP", 64, {"vision_config": _VIT})],
    "swin": [("Swin", 64, _SWIN), ("Swinv2", 64, _SWIN), ("DonutSwin", 64, _SWIN)],
    "convnext": [("ConvNext", 64, _STAGES), ("ConvNextV2", 64, _STAGES)],
    "resnet": [("ResNet", 64, {**_STAGES, "embedding_size": 16})],
    "regnet": [("RegNet", 64, {**_STAGES, "embedding_size": 16, "groups_width": 8})],
    "bit": [("Bit", 64, {**_STAGES, "embedding_size": 32, "hidden_sizes": [128, 256, 384, 512]})],
    "mobilenet": [
        ("MobileNetV1", 64, {"depth_multiplier": 0.25, "image_size": 64}),
        ("MobileNetV2", 64, {"depth_multiplier": 0.35, "image_size": 64}),
    ],
    "mobilevit": [
        ("MobileViT", 64, {"image_size": 64, "hidden_sizes": [48, 64, 80]}),
        ("MobileViTV2", 64, {"image_size": 64, "width_multiplier": 0.5}),
    ],
    "poolformer": [("PoolFormer", 64, {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]})],
    "segformer": [
        (
            "Segformer",
            64,
            {
                "depths": [1, 1, 1, 1],
                "hidden_sizes": [16, 32, 40, 64],
                "num_attention_heads": [1, 2, 5, 8],
            },
        )
    ],
    "levit": [("Levit", 64, {"image_size": 64})],
    "cvt": [("Cvt", 64, {"embed_dim": [16, 48, 96], "depth": [1, 2, 3], "num_heads": [1, 3, 6]})],
    "efficientnet": [
        (
            "EfficientNet",
            64,
            {
                "image_size": 64,
                "width_coefficient": 0.5,
                "hidden_dim": 640,
                "depth_coefficient": 1.0,
            },
        )
    ],
    "focalnet": [("FocalNet", 64, {"image_size": 64, "embed_dim": 24, "depths": [1, 1, 2, 1]})],
    "pvt": [
        ("Pvt", 64, {"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 80, 64]}),
        ("PvtV2", 64, {"image_size": 64, "depths": [1, 1, 1, 1]}),
    ],
    "hiera": [
        ("Hiera", 64, {"image_size": [64, 64], "embed_dim": 24, "depths": [1, 1, 2, 1]}),
    ],
    "swiftformer": [("SwiftFormer", 64, {"depths": [1, 1, 2, 1]})],
    "hgnet": [("HGNetV2", 64, {})],
    "textnet": [("TextNet", 64, {})],
    "lcnet": [("PPLCNet", 64, {})],
}
