"""The table of the zoo; its networks need torch, their slice is in `tests/zoo`."""

from __future__ import annotations

from collections import Counter

from tools import zoo_others, zoo_timm

SECTIONS = [
    ("timm", zoo_timm.TRANSFORMERS),
    ("timm", zoo_timm.HYBRIDS),
    ("timm", zoo_timm.CONVOLUTIONS),
    ("torchvision", zoo_others.TORCHVISION),
    ("transformers", zoo_others.TRANSFORMERS),
]
FAMILIES = """
vit deit beit cait swin hiera eva dinov2 siglip convit levit mobilevit efficientformer fastvit
pvt twins xcit edgenext davit focalnet maxvit coatnet volo metaformer mixer resmlp resnet regnet
densenet vgg alexnet squeezenet inception googlenet xception nasnet pnasnet mobilenet
efficientnet mnasnet ghostnet shufflenet convnext repvgg repvit hrnet dla vovnet nfnet dpn sk se
botnet halonet swiftformer convmixer crossvit tnt nest pit visformer coat gcvit rexnet selecsls
cspnet mambaout starnet inception-next efficientvit
"""


def test_more_than_190_architectures_each_once() -> None:
    names = Counter(
        (library, name)
        for library, section in SECTIONS
        for rows in section.values()
        for name, _, _ in rows
    )

    assert len(names) >= 190
    assert max(names.values()) == 1


def test_every_family_is_there() -> None:
    present = {family for _, section in SECTIONS for family in section}

    assert not set(FAMILIES.split()) - present
