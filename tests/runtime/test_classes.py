from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_gradcam.errors import ClassNotFoundError, UsageError
from onnx_gradcam.runtime.classes import ClassResolver
from tests.contract_models import LABELS

NAMED = ClassResolver(5, tuple(LABELS), "optional")
BARE = ClassResolver(5, None, "optional")
FIXED = ClassResolver(5, tuple(LABELS), "fixed:2")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, [-1, -1]),
        (3, [3, 3]),
        (-5, [-5, -5]),
        (np.int32(4), [4, 4]),
        ([0, -2], [0, -2]),
        (np.array([1, 2]), [1, 2]),
        ((2, "Boston bull"), [2, 2]),
        ("boston BULL", [2, 2]),
        ("Tinca tinca", [0, 0]),
        ("glede", [4, 4]),
        ("tench, Tinca tinca", [0, 0]),
        ("3", [3, 3]),
        ("-1", [-1, -1]),
    ],
)
def test_classes_of_two_images(classes: Any, expected: list[int]) -> None:
    resolved = NAMED.per_image(classes, 2)
    assert resolved.dtype == np.int64
    assert resolved.tolist() == expected


@pytest.mark.parametrize("index", [5, -6, 1000, "5"])
def test_out_of_range(index: int | str) -> None:
    with pytest.raises(ClassNotFoundError, match="0 to 4"):
        NAMED.per_image(index, 1)


def test_unknown_label_offers_the_nearest() -> None:
    with pytest.raises(ClassNotFoundError, match="did you mean 'Boston bull'"):
        NAMED.per_image("Boston bul", 1)
    with pytest.raises(ClassNotFoundError, match="holds no labels"):
        BARE.per_image("crane", 1)


def test_a_label_of_two_classes_is_ambiguous() -> None:
    with pytest.raises(UsageError, match="classes 1, 3"):
        NAMED.per_image("crane", 1)


@pytest.mark.parametrize("classes", [[1], [1, 2, 3], []])
def test_not_one_class_per_image(classes: list[int]) -> None:
    with pytest.raises(UsageError, match="classes for 2 images"):
        NAMED.per_image(classes, 2)


@pytest.mark.parametrize("item", [1.0, True, None, [1], np.array([1, 2]), b"crane", {1}])
def test_what_is_no_class(item: Any) -> None:
    if item is None:
        assert NAMED.per_image([None, 1], 2).tolist() == [-1, 1]
        return
    with pytest.raises(UsageError, match="an index or a label"):
        NAMED.per_image([item, 1], 2)


def test_a_fixed_class_is_the_only_one() -> None:
    assert FIXED.per_image(None, 2).tolist() == [2, 2]
    assert FIXED.per_image("Boston bull", 1).tolist() == [2]
    for other in (1, -1, "glede"):
        with pytest.raises(UsageError, match="explains class 2 only"):
            FIXED.per_image(other, 1)


def test_several_classes_of_one_photo() -> None:
    assert NAMED.several(None).tolist() == [-1]
    assert NAMED.several("glede").tolist() == [4]
    assert NAMED.several([-1, "glede", 0]).tolist() == [-1, 4, 0]
