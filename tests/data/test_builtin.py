"""The built-in images: the same for everyone, balanced, and not to be had by a linear model."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinyalex.data.builtin import builtin_dataset
from tinyalex.data.dataset import Split

pytestmark = pytest.mark.xdist_group("builtin")  # 4,000 pictures are drawn once


def pictures(split: Split, count: int) -> np.ndarray:
    return np.stack([split.read(i) for i in range(count)])


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return pictures(builtin_dataset().train, 3000)


@pytest.fixture(scope="module")
def val() -> np.ndarray:
    return pictures(builtin_dataset().val, 1000)


def test_what_the_data_set_says_of_itself():
    data = builtin_dataset(training_images=50)
    assert len(data.classes) == len(set(data.classes)) == 10
    assert data.titles == data.classes
    for split, count in ((data.train, 50), (data.val, 2000)):
        assert split.labels.dtype == np.int32
        assert split.labels.shape == (count,)
        assert np.all(np.bincount(split.labels, minlength=10) == count // 10)
        assert len(split.names) == len(set(split.names)) == count
    assert all(
        data.classes[c] in n for c, n in zip(data.train.labels, data.train.names, strict=True)
    )
    assert set(data.train.names).isdisjoint(data.val.names)


@pytest.mark.parametrize("size", [32, 48, 64, 256])
def test_a_picture_is_uint8_rgb_of_any_size(size):
    picture = builtin_dataset(size=size).train.read(7)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


def test_the_size_does_not_change_the_scene():
    small = pictures(builtin_dataset(size=32).train, 20).astype(float)
    large = pictures(builtin_dataset(size=64).train, 20).astype(float)
    shrunk = large.reshape(20, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - shrunk).mean() < 2
    assert np.abs(small - np.roll(shrunk, 1, axis=0)).mean() > 40  # another scene is far away


def test_the_pictures_are_the_same_everywhere():
    assert zlib.crc32(pictures(builtin_dataset().train, 20)) == 1156880620
    assert zlib.crc32(pictures(builtin_dataset().val, 20)) == 2915679258


@pytest.mark.slow
def test_order_and_threads_do_not_change_a_picture(train):
    split = builtin_dataset().train
    backwards = range(199, -1, -1)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(split.read, backwards))
    assert np.array_equal(drawn, train[backwards])


def test_no_picture_comes_twice(train, val):
    other_seed = builtin_dataset(seed=1)
    everything = (train, val, pictures(other_seed.train, 100), pictures(other_seed.val, 100))
    assert len({picture.tobytes() for part in everything for picture in part}) == 4200


def test_a_picture_past_the_end_is_an_error():
    with pytest.raises(IndexError):
        builtin_dataset(training_images=10).train.read(10)


def pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255


def channel_histograms(images: np.ndarray) -> np.ndarray:
    """How many pixels of each channel fall into each of 32 bins: (N, 96)."""
    bins = 32 * np.arange(3) + images // 8
    return np.stack([np.bincount(b.ravel(), minlength=96) for b in bins]) / 1024


def colour_histograms(images: np.ndarray) -> np.ndarray:
    """How many pixels fall into each of 8 x 8 x 8 colours: (N, 512)."""
    bins = images // 32 @ np.array([64, 8, 1])
    return np.stack([np.bincount(b.ravel(), minlength=512) for b in bins]) / 1024


def linear_accuracy(x: np.ndarray, x_val: np.ndarray, *ridges: float) -> float:
    """Top-1 accuracy on `x_val` of the linear map fitted to one-hot labels by ridge regression.

    The best that one of the ridges comes to.
    """
    mean = x.mean(axis=0)
    centred, labels = x - mean, builtin_dataset().train.labels[: len(x)]
    products, targets = centred.T @ centred, centred.T @ np.eye(10)[labels]
    accuracies = []
    for ridge in ridges:
        w = np.linalg.solve(products + ridge * np.eye(x.shape[1]), targets)
        guesses = np.argmax((x_val - mean) @ w, axis=1)
        accuracies.append(np.mean(guesses == builtin_dataset().val.labels[: len(x_val)]))
    return float(max(accuracies))


@pytest.mark.slow
@pytest.mark.parametrize("features", [pixels, channel_histograms, colour_histograms])
def test_a_linear_model_does_not_suffice(features, train, val):
    assert linear_accuracy(features(train), features(val), 0.01, 1, 100) < 0.3


@pytest.mark.slow
def test_the_linear_model_of_these_tests_can_learn(train, val):
    """Else the bound above would say nothing: told the label in one corner, it finds it."""

    def marked(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        images = images.copy()
        images[np.arange(len(images)), 0, labels[: len(images)]] = 255, 0, 0
        return pixels(images)

    data = builtin_dataset()
    x, x_val = marked(train, data.train.labels), marked(val, data.val.labels)
    assert linear_accuracy(x, x_val, 100) > 0.9
