"""The architectures of timm in the zoo: the smallest variant of each, made smaller where it can be.

A row is ``(name, side of the input in pixels, options of timm.create_model)``; rows stand under
their family.
"""

from __future__ import annotations

from typing import Any

_Rows = list[tuple[str, int, dict[str, Any]]]

_NARROW = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}
_NARROW_V2 = {"layers": (1, 1, 1, 1), "channels": (128, 256, 384, 512), "stem_chs": 64}
_NARROW_VOV = {
    "config": {
        "stage_conv_chs": [32, 40, 48, 56],
        "stage_out_chs": [64, 96, 128, 160],
        "block_per_stage": [1, 1, 1, 1],
    }
}
_SMALL_VIT = {"img_size": 64, "depth": 3, "embed_dim": 96, "num_heads": 3}
_MAXVIT = {
    "img_size": 128,
    "config": {"embed_dim": (32, 64, 128, 256), "depths": (1, 1, 1, 1), "stem_width": 32},
}
_NARROW_NF = {
    "config": {"depths": (1, 1, 1, 1), "channels": (64, 128, 192, 256), "num_features": 256}
}
_NARROW_DLA = {"channels": (16, 16, 32, 32, 48, 64)}
_ONE_EACH = {"depths": (1, 1, 1, 1)}


def _with(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**options, **more}


TRANSFORMERS: dict[str, _Rows] = {
    "vit": [
        ("vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 3}),
        ("vit_base_patch32_clip_224", 96, _with(_SMALL_VIT, img_size=96)),
        ("vit_medium_patch16_gap_256", 64, _SMALL_VIT),
        ("vit_small_patch16_18x2_224", 64, _SMALL_VIT),
        ("vit_little_patch16_reg4_gap_256", 64, _SMALL_VIT),
        ("vit_base_patch16_rpn_224", 64, _SMALL_VIT),
        ("vit_pwee_patch16_reg1_gap_256", 64, _SMALL_VIT),
        ("flexivit_small", 64, _SMALL_VIT),
        ("aimv2_large_patch14_224", 56, _with(_SMALL_VIT, img_size=56)),
        ("beit3_base_patch16_224", 64, _SMALL_VIT),
        ("naflexvit_base_patch16_gap", 64, {"depth": 3, "embed_dim": 96, "num_heads": 3}),
    ],
    "vit, relative positions": [
        ("vit_relpos_small_patch16_224", 64, _SMALL_VIT),
        ("vit_srelpos_small_patch16_224", 64, _SMALL_VIT),
        ("vit_relpos_base_patch16_clsgap_224", 64, _SMALL_VIT),
    ],
    "vit, hybrid": [
        ("vit_tiny_r_s16_p8_224", 64, {"img_size": 64, "depth": 3}),
        ("vit_small_resnet26d_224", 64, _SMALL_VIT),
    ],
    "deit": [
        ("deit_tiny_patch16_224", 64, {"img_size": 64, "depth": 3}),
        ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64, "depth": 3}),
        ("deit3_small_patch16_224", 64, _SMALL_VIT),
    ],
    "beit": [
        ("beit_base_patch16_224", 64, _SMALL_VIT),
        ("beitv2_base_patch16_224", 64, _SMALL_VIT),
    ],
    "cait": [("cait_xxs24_224", 64, {"img_size": 64, "depth": 3})],
    "eva": [
        ("eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 3}),
        ("vit_small_patch16_rope_224", 64, _SMALL_VIT),
        ("vit_small_patch16_dinov3", 64, _SMALL_VIT),
    ],
    "dinov2": [
        ("vit_small_patch14_dinov2", 56, _with(_SMALL_VIT, img_size=56)),
        ("vit_small_patch14_reg4_dinov2", 56, _with(_SMALL_VIT, img_size=56)),
    ],
    "siglip": [
        ("vit_base_patch16_siglip_224", 64, _SMALL_VIT),
        ("vit_base_patch16_siglip_gap_224", 64, _SMALL_VIT),
    ],
    "sam": [("samvit_base_patch16_224", 64, _SMALL_VIT)],
    "vitamin": [("vitamin_small_224", 64, {"img_size": 64, "depth": 2})],
    "convit": [("convit_tiny", 64, {"img_size": 64, "depth": 4, "local_up_to_layer": 2})],
    "levit": [("levit_128s", 128, {"img_size": 128}), ("levit_conv_128s", 128, {"img_size": 128})],
    "swin": [
        (
            "swin_tiny_patch4_window7_224",
            128,
            {"img_size": 128, "window_size": 4, "embed_dim": 32, "depths": (2, 2, 2, 2)},
        ),
        ("swin_s3_tiny_224", 112, {"img_size": 112, "embed_dim": 48, "depths": (2, 2, 2, 2)}),
        (
            "swinv2_tiny_window8_256",
            128,
            {"img_size": 128, "window_size": 4, "embed_dim": 48, "depths": (2, 2, 2, 2)},
        ),
        (
            "swinv2_cr_tiny_ns_224",
            128,
            {"img_size": 128, "window_size": 4, "embed_dim": 48, "depths": (2, 2, 2, 2)},
        ),
    ],
    "hiera": [
        ("hiera_tiny_224", 128, {"img_size": (128, 128), "stages": (1, 1, 2, 1), "embed_dim": 32}),
        (
            "hiera_small_abswin_256",
            128,
            {"img_size": (128, 128), "stages": (1, 1, 2, 1), "embed_dim": 32},
        ),
        (
            "hieradet_small",
            128,
            {"stages": (1, 1, 2, 1), "global_att_blocks": (3,), "embed_dim": 32},
        ),
    ],
    "twins": [
        (
            "twins_pcpvt_small",
            64,
            {"img_size": 64, "depths": (1, 1, 2, 1), "embed_dims": (32, 64, 160, 128)},
        ),
        ("twins_svt_small", 128, {"img_size": 128, "depths": (1, 1, 2, 1)}),
    ],
    "pvt": [
        ("pvt_v2_b0", 64, _ONE_EACH),
        ("pvt_v2_b2_li", 224, {"depths": (1, 1, 1, 1), "embed_dims": (32, 64, 80, 64)}),
    ],
    "xcit": [("xcit_nano_12_p16_224", 64, {"img_size": 64, "depth": 3})],
    "volo": [
        (
            "volo_d1_224",
            64,
            {
                "img_size": 64,
                "layers": (1, 1, 1, 1),
                "embed_dims": (48, 96, 96, 96),
                "num_heads": (3, 6, 6, 6),
            },
        )
    ],
    "tnt": [("tnt_s_patch16_224", 64, {"img_size": 64, "depth": 3})],
    "nest": [
        ("nest_tiny_jx", 64, {"img_size": 64, "depths": (1, 1, 2), "embed_dims": (48, 96, 192)})
    ],
    "pit": [
        ("pit_ti_224", 64, {"img_size": 64, "depth": (1, 2, 1)}),
        ("pit_ti_distilled_224", 64, {"img_size": 64, "depth": (1, 2, 1)}),
    ],
    "crossvit": [
        ("crossvit_9_240", 240, {"depth": ((1, 1, 0), (1, 1, 0))}),
        ("crossvit_9_dagger_240", 240, {"depth": ((1, 1, 0), (1, 1, 0))}),
    ],
    "coat": [
        ("coat_lite_tiny", 64, {"img_size": 64, "serial_depths": (1, 1, 1, 1)}),
        ("coat_tiny", 64, {"img_size": 64, "serial_depths": (1, 1, 1, 1), "parallel_depth": 2}),
    ],
    "gcvit": [
        ("gcvit_xxtiny", 64, {"img_size": 64, "depths": (1, 1, 2, 1), "window_size": (2,) * 4})
    ],
    "mvit v2": [
        ("mvitv2_tiny", 64, {"img_size": 64, "config": {"depths": (1, 1, 2, 1), "embed_dim": 48}}),
        (
            "mvitv2_small_cls",
            64,
            {"img_size": 64, "config": {"depths": (1, 1, 2, 1), "embed_dim": 48}},
        ),
    ],
    "davit": [("davit_tiny", 64, {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192)})],
    "focalnet": [
        ("focalnet_tiny_srf", 64, {"depths": (1, 1, 2, 1), "embed_dim": 48}),
        ("focalnet_tiny_lrf", 64, {"depths": (1, 1, 2, 1), "embed_dim": 48}),
    ],
    "maxvit": [
        ("maxvit_rmlp_pico_rw_256", 128, _MAXVIT),
        ("maxvit_tiny_tf_224", 64, _with(_MAXVIT, img_size=64)),
        ("maxxvit_rmlp_nano_rw_256", 64, _with(_MAXVIT, img_size=64)),
    ],
    "coatnet": [
        ("coatnet_pico_rw_224", 64, _with(_MAXVIT, img_size=64)),
        ("coatnet_nano_cc_224", 64, _with(_MAXVIT, img_size=64)),
        ("coatnext_nano_rw_224", 64, _with(_MAXVIT, img_size=64)),
    ],
    "visformer": [("visformer_tiny", 64, {"img_size": 64, "depth": (2, 1, 1)})],
    "tinyvit": [("tiny_vit_5m_224", 128, {})],
    "nextvit": [("nextvit_small", 64, {"depths": (1, 1, 5, 1)})],
    "sequencer": [
        (
            "sequencer2d_s",
            56,
            {"img_size": 56, "layers": (1, 1, 1, 1), "embed_dims": (48, 96, 96, 96)},
        )
    ],
    "mixer": [
        ("mixer_s32_224", 128, {"img_size": 128, "num_blocks": 3, "embed_dim": 96}),
        ("gmixer_12_224", 64, {"img_size": 64, "num_blocks": 3, "embed_dim": 96}),
        ("gmlp_ti16_224", 64, {"img_size": 64, "num_blocks": 3}),
    ],
    "resmlp": [("resmlp_12_224", 64, {"img_size": 64, "num_blocks": 3, "embed_dim": 96})],
    "shvit": [("shvit_s1", 128, {})],
    "iformer": [("iformer_t", 64, {})],
    "efficientvim": [("efficientvim_m1", 128, {})],
}
"""Networks of tokens or windows."""

HYBRIDS: dict[str, _Rows] = {
    "mobilevit": [
        ("mobilevit_xxs", 64, {}),
        ("mobilevitv2_050", 64, {}),
    ],
    "efficientformer": [
        ("efficientformer_l1", 224, {"depths": (1, 1, 1, 2), "embed_dims": (24, 48, 96, 192)}),
        ("efficientformerv2_s0", 224, {}),
    ],
    "fastvit": [("fastvit_t8", 64, {}), ("fastvit_sa12", 64, {"layers": (1, 1, 2, 1)})],
    "fasternet": [("fasternet_t0", 64, {})],
    "edgenext": [
        ("edgenext_xx_small", 64, {}),
        ("edgenext_small_rw", 64, {"depths": (2, 2, 2, 2), "dims": (24, 48, 96, 192)}),
    ],
    "metaformer": [
        ("poolformer_s12", 64, {"depths": (1, 1, 2, 1), "dims": (32, 48, 64, 96)}),
        ("poolformerv2_s12", 64, {"depths": (1, 1, 2, 1), "dims": (32, 48, 64, 96)}),
        ("convformer_s18", 64, {"depths": (1, 1, 2, 1), "dims": (32, 48, 64, 96)}),
        ("caformer_s18", 64, {"depths": (1, 1, 2, 1), "dims": (32, 64, 96, 128)}),
    ],
    "swiftformer": [("swiftformer_xs", 64, {})],
    "efficientvit": [("efficientvit_b0", 64, {}), ("efficientvit_m0", 224, {})],
    "repvit": [("repvit_m0_9", 64, {})],
    "lowformer": [("lowformer_b0", 128, {"head_widths": (256, 256)})],
    "cpubone": [("cpubone_nano", 64, {})],
    "csatv2": [
        (
            "csatv2",
            128,
            {"dims": (32, 48, 64, 96), "depths": (1, 1, 2, 2), "transformer_depths": (0, 0, 1, 1)},
        )
    ],
    "mambaout": [("mambaout_femto", 64, {"depths": (1, 1, 2, 1)})],
    "starnet": [("starnet_s050", 64, {})],
    "botnet": [
        ("botnet26t_256", 128, {"img_size": 128}),
        ("eca_botnext26ts_256", 128, {"img_size": 128}),
    ],
    "halonet": [("halonet26t", 256, {}), ("eca_halonext26ts", 256, {})],
    "lambda": [("lambda_resnet26t", 128, {"img_size": 128})],
}
"""Convolutions and attention."""

CONVOLUTIONS: dict[str, _Rows] = {
    "resnet": [
        ("resnet18", 64, _NARROW),
        ("resnet50", 64, _NARROW),
        ("resnet26d", 64, _NARROW),
        ("resnet26t", 64, _NARROW),
        ("resnet50_gn", 64, _with(_NARROW, channels=(32, 64, 96, 128))),
        ("resnetaa50d", 64, _NARROW),
        ("resnetblur18", 64, _NARROW),
        ("resnetrs50", 64, _NARROW),
        ("resnext50_32x4d", 64, _NARROW),
        ("wide_resnet50_2", 64, _NARROW),
        ("seresnet50", 64, _NARROW),
        ("ecaresnet50d", 64, _NARROW),
    ],
    "resnet v2": [
        ("resnetv2_18", 64, _NARROW_V2),
        ("resnetv2_50", 64, _NARROW_V2),
        ("resnetv2_50x1_bit", 64, _NARROW_V2),
        ("resnetv2_50d_gn", 64, _NARROW_V2),
        ("resnetv2_50d_frn", 64, _NARROW_V2),
        ("resnetv2_50d_evos", 64, _NARROW_V2),
    ],
    "res2net": [("res2net50_14w_8s", 64, _NARROW), ("res2next50", 64, _NARROW)],
    "resnest": [("resnest14d", 64, _NARROW), ("resnest50d_1s4x24d", 64, _NARROW)],
    "byobnet": [
        ("resnet32ts", 64, {}),
        ("gcresnext26ts", 64, {}),
        ("bat_resnext26ts", 256, {}),
        ("gernet_s", 64, {}),
        ("mobileone_s0", 64, {}),
        ("regnetz_b16", 64, {}),
        ("test_byobnet", 64, {}),
    ],
    "repvgg": [("repvgg_a0", 64, {}), ("repghostnet_050", 64, {})],
    "regnet": [
        ("regnetx_002", 64, {}),
        ("regnety_002", 64, {}),
        ("regnetz_005", 64, {}),
        ("nf_regnet_b0", 64, {"config": {"depths": (1, 1, 1, 1), "num_features": 256}}),
    ],
    "densenet": [
        ("densenet121", 64, {"block_config": (2, 2, 2, 2)}),
        ("densenetblur121d", 64, {"block_config": (2, 2, 2, 2)}),
    ],
    "rdnet": [("rdnet_tiny", 64, {"growth_rates": (32,) * 7, "num_blocks_list": (1,) * 7})],
    "vgg": [("vgg11", 224, {"mlp_ratio": 0.02}), ("vgg13_bn", 224, {"mlp_ratio": 0.02})],
    "inception": [
        ("inception_v3", 107, {}),
        ("inception_v4", 107, {}),
        ("inception_resnet_v2", 107, {}),
    ],
    "xception": [("legacy_xception", 64, {}), ("xception41", 64, {}), ("xception41p", 64, {})],
    "nasnet": [
        ("nasnetalarge", 64, {"stem_size": 24, "num_features": 672, "channel_multiplier": 2})
    ],
    "pnasnet": [("pnasnet5large", 64, {})],
    "mobilenet": [
        ("mobilenetv1_100", 64, {}),
        ("mobilenetv2_050", 64, {}),
        ("mobilenetv3_small_050", 64, {}),
        ("mobilenetv3_large_075", 64, {}),
        ("mobilenetv4_conv_small_050", 64, {}),
        ("mobilenetv4_conv_blur_medium", 64, {}),
        ("mobilenetv4_hybrid_medium_075", 64, {}),
        ("mobilenet_edgetpu_100", 64, {}),
    ],
    "efficientnet": [
        ("efficientnet_b0", 64, {}),
        ("efficientnet_b0_gn", 64, {}),
        ("efficientnet_b0_g16_evos", 64, {}),
        ("efficientnet_lite0", 64, {}),
        ("efficientnet_es", 64, {}),
        ("efficientnet_cc_b0_4e", 64, {}),
        ("tf_efficientnet_b0", 64, {}),
        ("tf_efficientnetv2_b0", 64, {}),
        ("efficientnetv2_rw_t", 64, {}),
        ("mixnet_s", 64, {}),
        ("fbnetc_100", 64, {}),
        ("spnasnet_100", 64, {}),
        ("mnasnet_small", 64, {}),
        ("semnasnet_075", 64, {}),
        ("tinynet_e", 64, {}),
        ("test_efficientnet", 64, {}),
    ],
    "mobilenet v3 family": [
        ("fbnetv3_b", 64, {}),
        ("hardcorenas_a", 64, {}),
        ("lcnet_035", 64, {}),
        ("lcnetv2_small", 64, {}),
    ],
    "rexnet": [("rexnet_100", 64, {}), ("rexnetr_100", 64, {})],
    "ghostnet": [
        ("ghostnet_050", 64, {}),
        ("ghostnetv2_100", 64, {}),
        ("ghostnetv3_050", 64, {}),
    ],
    "convnext": [
        ("convnext_atto", 64, {"depths": (1, 1, 2, 1)}),
        ("convnext_tiny_hnf", 64, {"depths": (1, 1, 1, 1), "dims": (32, 48, 64, 96)}),
        ("convnext_atto_rms", 64, {"depths": (1, 1, 2, 1)}),
        ("convnextv2_atto", 64, {"depths": (1, 1, 2, 1)}),
    ],
    "inception-next": [("inception_next_atto", 64, {"depths": (1, 1, 2, 1)})],
    "convmixer": [("convmixer_768_32", 64, {"depth": 3, "dim": 96})],
    "hrnet": [("hrnet_w18_small", 64, {})],
    "hgnet": [
        ("hgnetv2_b0", 64, {"head_hidden_size": 256}),
        ("hgnet_tiny", 64, {"head_hidden_size": 256}),
    ],
    "dla": [
        ("dla34", 64, _NARROW_DLA),
        ("dla46x_c", 64, {}),
        ("dla60_res2net", 64, _with(_NARROW_DLA, channels=(16, 16, 32, 64, 96, 128))),
    ],
    "vovnet": [
        ("vovnet39a", 64, _NARROW_VOV),
        ("ese_vovnet19b_slim_dw", 64, {}),
        ("eca_vovnet39b", 64, _NARROW_VOV),
    ],
    "nfnet": [
        ("eca_nfnet_l0", 64, {"config": {"depths": (1, 1, 1, 1)}}),
        ("nf_resnet26", 64, _NARROW_NF),
        ("test_nfnet", 64, {}),
    ],
    "dpn": [("dpn48b", 64, {"k_sec": (1, 1, 1, 1)}), ("dpn68", 64, {"k_sec": (1, 1, 1, 1)})],
    "sk": [("skresnet18", 64, _NARROW), ("skresnext50_32x4d", 64, _NARROW)],
    "se": [
        ("legacy_seresnet18", 64, {"layers": (1, 1, 1, 1)}),
        ("legacy_seresnext26_32x4d", 64, {"layers": (1, 1, 1, 1)}),
    ],
    "selecsls": [("selecsls42", 64, {})],
    "cspnet": [
        ("cspresnet50", 64, {}),
        ("cs3darknet_focus_s", 64, {}),
        ("cspnext_tiny", 64, {}),
        ("darknet17", 64, {}),
    ],
    "tresnet": [("tresnet_m", 64, {"layers": (1, 1, 1, 1)})],
}
"""Convolutional networks."""
