"""What each metric says of cases that are known by thought."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.evaluation import (
    adcc,
    coherency,
    complexity,
    deletion,
    energy_in_mask,
    insertion,
    masked_confidence,
    max_sensitivity,
    model_randomisation,
    pointing_game,
    road,
    sparseness,
)
from onnx_gradcam.evaluation.curves import blurred
from onnx_gradcam.evaluation.imputation import impute
from onnx_gradcam.evaluation.prediction import class_scores, confidence_name, sigmoid, softmax
from onnx_gradcam.evaluation.randomisation import spearman

SIZE = (8, 12)
IMAGES = np.ones((2, 1, *SIZE), np.float32)
CLASSES = np.array([0, 0])
OBJECT = np.zeros(SIZE, np.bool_)
OBJECT[2:5, 3:7] = True
RIGHT = np.repeat(OBJECT[None].astype(np.float32), 2, axis=0)
FLAT = np.full_like(RIGHT, 0.5)


def object_seen(images: NDArray[Any]) -> NDArray[Any]:
    """Return the share of the object that is there, for class 0."""
    share = images[:, 0][:, OBJECT].mean(axis=1)
    return np.stack([share, 1 - share], axis=1)


def test_the_object_deleted_first_drops_the_score_at_once_and_last_at_the_end() -> None:
    subject = (object_seen, IMAGES, CLASSES)
    share = OBJECT.mean()
    first = deletion(*subject, RIGHT, steps=OBJECT.size)
    last = deletion(*subject, 1 - RIGHT, steps=OBJECT.size)
    np.testing.assert_allclose(first.areas, share / 2, atol=1e-6)
    np.testing.assert_allclose(last.areas, 1 - share / 2, atol=1e-6)
    np.testing.assert_allclose(first.scores[:, 0], 1)
    np.testing.assert_allclose(first.scores[:, -1], 0)
    assert first.fractions[0] == 0
    assert first.fractions[-1] == 1


def test_insertion_is_deletion_backwards() -> None:
    subject = (object_seen, IMAGES, CLASSES)
    empty = np.zeros_like(IMAGES)
    found = insertion(*subject, RIGHT, baseline=empty)
    backwards = deletion(*subject, RIGHT)
    np.testing.assert_allclose(found.areas, 1 - backwards.areas, atol=1e-6)
    assert (found.areas > 0.9).all()


def test_a_constant_map_ranks_nothing() -> None:
    maps = np.stack([RIGHT[0], FLAT[0]])
    for areas in (
        deletion(object_seen, IMAGES, CLASSES, maps).areas,
        insertion(object_seen, IMAGES, CLASSES, maps).areas,
        road(object_seen, IMAGES, CLASSES, maps).combined,
    ):
        assert np.isnan(areas).tolist() == [False, True]


def test_the_batch_size_does_not_matter() -> None:
    random = np.random.default_rng(1)
    images = random.random((3, 1, *SIZE), np.float32)
    maps = random.random((3, *SIZE), np.float32)
    classes = np.array([0, 1, 0])
    runs = [
        deletion(object_seen, images, classes, maps, batch_size=size).scores for size in (1, 7, 99)
    ]
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-6)
    np.testing.assert_allclose(runs[0], runs[2], atol=1e-6)


def test_sounds_can_be_deleted_but_not_imputed() -> None:
    sounds = np.random.default_rng(2).random((1, 1, 30), np.float32)
    maps = np.random.default_rng(3).random((1, 30), np.float32)

    def loudness(images: NDArray[Any]) -> NDArray[Any]:
        return images.mean(axis=(1, 2), keepdims=True)[..., 0]

    assert deletion(loudness, sounds, np.array([0]), maps).areas[0] > 0.1
    with pytest.raises(UnsupportedModelError, match="pictures"):
        road(loudness, sounds, np.array([0]), maps)


def test_blurring_keeps_the_mean_of_a_picture_and_takes_its_detail() -> None:
    picture = np.random.default_rng(4).random((1, 2, 40, 30), np.float32)
    found = blurred(picture)
    np.testing.assert_allclose(found.mean(), picture.mean(), atol=0.01)
    assert found.std() < 0.2 * picture.std()
    np.testing.assert_allclose(blurred(np.ones_like(picture)), 1, atol=1e-6)


def test_drop_and_increase_are_those_of_the_dimmed_image() -> None:
    found = masked_confidence(object_seen, IMAGES, CLASSES, FLAT)
    np.testing.assert_allclose(found.drop, 0.5, atol=1e-6)
    assert found.increase.tolist() == [0, 0]
    other = masked_confidence(object_seen, 0.8 * IMAGES, np.array([1, 1]), FLAT)
    np.testing.assert_allclose(other.after, 0.6, atol=1e-6)
    assert other.increase.tolist() == [1, 1]
    assert other.drop.tolist() == [0, 0]


def test_adcc_is_a_harmonic_mean() -> None:
    drop, alike, size = np.array([0.5, 1.0, 0.0]), np.array([0.5, 1, 1]), np.array([0.5, 0, 0])
    np.testing.assert_allclose(adcc(drop, alike, size), [0.5, 0, 1])


def test_coherency_and_complexity_of_known_maps() -> None:
    def same(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return RIGHT

    def inverse(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return 1 - RIGHT

    np.testing.assert_allclose(coherency(same, IMAGES, CLASSES, RIGHT), 1)
    np.testing.assert_allclose(coherency(inverse, IMAGES, CLASSES, RIGHT), 0, atol=1e-12)
    assert np.isnan(coherency(same, IMAGES, CLASSES, FLAT)).all()
    np.testing.assert_allclose(complexity(FLAT), 0.5)


def test_a_ramp_is_imputed_exactly_and_known_pixels_stay() -> None:
    rows, columns = np.mgrid[:21, :30].astype(np.float32)
    image = np.stack([rows, 2 * columns - rows])
    known = np.ones((21, 30), np.bool_)
    known[5:14, 8:22] = False
    found = impute(image, known, noise=0)
    np.testing.assert_allclose(found, image, atol=1e-4)
    noisy = impute(image, known, noise=0.1)
    np.testing.assert_array_equal(noisy[:, known], image[:, known])
    assert 0.08 < (noisy - found)[:, ~known].std() < 0.12


def test_imputation_solves_the_equations_of_the_paper() -> None:
    random = np.random.default_rng(6)
    image = random.random((1, 9, 7), np.float32)
    known = random.random((9, 7)) < 0.3
    found = impute(image, known, noise=0)[0]
    for row, column in np.argwhere(~known):
        total, weights = 0.0, 0.0
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                y, x = row + down, column + right
                if (down or right) and 0 <= y < 9 and 0 <= x < 7:
                    weight = 1 / 12 if down and right else 1 / 6
                    total, weights = total + weight * found[y, x], weights + weight
        np.testing.assert_allclose(found[row, column], total / weights, atol=1e-5)


def test_nothing_known_becomes_the_mean_and_nothing_missing_stays() -> None:
    image = np.random.default_rng(7).random((2, 6, 6), np.float32)
    none = np.zeros((6, 6), np.bool_)
    means = np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    np.testing.assert_allclose(impute(image, none, noise=0), means, atol=1e-6)
    np.testing.assert_array_equal(impute(image, ~none), image)


def test_road_tells_a_right_map_from_a_wrong_one() -> None:
    images = np.zeros_like(IMAGES)
    images[:, 0, OBJECT] = 1  # nothing around the object tells of it
    smooth = RIGHT + 0.01 * np.random.default_rng(8).random(RIGHT.shape)
    right = road(object_seen, images, CLASSES, smooth.astype(np.float32))
    wrong = road(object_seen, images, CLASSES, (1.01 - smooth).astype(np.float32))
    assert (right.combined > 0.2).all()
    assert (wrong.combined < -0.2).all()
    assert (right.most < right.least).all()


def test_road_is_seeded() -> None:
    maps = np.random.default_rng(9).random((2, *SIZE), np.float32)
    runs = [road(object_seen, IMAGES, CLASSES, maps, seed=seed).combined for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()


def test_pointing_and_energy() -> None:
    masks = np.stack([OBJECT, ~OBJECT])
    assert pointing_game(RIGHT, masks).tolist() == [1, 0]
    assert pointing_game(RIGHT, masks, tolerance=1).tolist() == [1, 1]
    assert pointing_game(FLAT, masks).tolist() == [0, 0]
    np.testing.assert_allclose(energy_in_mask(RIGHT, masks), [1, 0])
    np.testing.assert_allclose(energy_in_mask(FLAT, masks), [OBJECT.mean(), 1 - OBJECT.mean()])
    empty = np.zeros_like(masks)
    assert np.isnan(pointing_game(RIGHT, empty)).all()
    assert np.isnan(energy_in_mask(RIGHT, empty)).all()
    assert np.isnan(energy_in_mask(0 * RIGHT, masks)).all()


def test_the_gini_index_of_known_maps() -> None:
    one = np.zeros((1, 5, 5), np.float32)
    one[0, 2, 2] = 3
    np.testing.assert_allclose(sparseness(one), 1 - 1 / 25)
    np.testing.assert_allclose(sparseness(FLAT), 0, atol=1e-12)
    np.testing.assert_allclose(sparseness(np.array([[[1.0, 3.0]]], np.float32)), 0.25)
    assert np.isnan(sparseness(0 * one)).all()


def test_maximum_sensitivity_is_bounded_by_the_noise() -> None:
    images = np.random.default_rng(10).random((2, 1, *SIZE), np.float32)

    def itself(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return images[:, 0]

    def constant(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return RIGHT

    reach = np.ptp(images, axis=(1, 2, 3)) * np.sqrt(96)
    norms = np.linalg.norm(images.reshape(2, -1), axis=1)
    found = max_sensitivity(itself, images, CLASSES, images[:, 0], radius=0.1)
    assert (found < 0.1 * reach / norms).all()
    assert (found > 0.05 * reach / norms).all()
    assert max_sensitivity(constant, images, CLASSES, RIGHT).tolist() == [0, 0]
    assert np.isnan(max_sensitivity(constant, images, CLASSES, 0 * RIGHT)).all()


def test_randomisation_compares_with_each_model() -> None:
    def inverse(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return 1 - RIGHT

    def same(images: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return 2 * RIGHT

    found = model_randomisation(RIGHT, IMAGES, CLASSES, [same, inverse])
    np.testing.assert_allclose(found, [[1, 1], [-1, -1]])
    assert np.isnan(spearman(RIGHT, FLAT)).all()


def test_confidences() -> None:
    scores = np.array([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(softmax(scores), [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(sigmoid(scores), [[1, 0.5, 0], [0.5] * 3])
    assert confidence_name(scores) == "softmax"
    assert confidence_name(scores[:, :1]) == "sigmoid"
    assert confidence_name(softmax(scores)) == "raw"


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="class 7"):
        class_scores(object_seen, list(IMAGES), [0, 7])
    with pytest.raises(UsageError, match="not"):
        class_scores(lambda images: images, list(IMAGES), [0, 0])
