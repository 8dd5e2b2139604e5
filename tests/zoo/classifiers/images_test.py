"""Image data: the embedded digits, their variants, files and their damage."""

import sys
import types

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.zoo.classifiers import images


def load(**options):
  return images.load_images(images.ImageOptions(**options))


def arrays(**changes):
  rng = np.random.default_rng(0)
  made = {
    "x_train": rng.integers(0, 256, (6, 5, 4), np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "x_test": rng.integers(0, 256, (3, 5, 4), np.uint8),
    "y_test": np.array([[0], [1], [3]]),
  }
  return made | changes


@pytest.fixture(scope="module")
def digits():
  return load()


def test_digits_are_there_without_a_file(digits):
  assert digits.shape == (1, 8, 8)
  assert len(digits.x_train) == 1297 and len(digits.x_test) == 500
  assert digits.num_classes == 10
  assert digits.x_train.min() == 0 and digits.x_train.max() == 255
  both = np.concatenate([digits.x_train, digits.x_test])
  assert len(np.unique(both.reshape(1797, -1), axis=0)) > 1790
  assert np.bincount(digits.y_test).min() > 30, "all digits are in the test"
  # Images keep their labels: the mean images tell the test images apart.
  means = np.stack(
    [digits.x_train[digits.y_train == k].mean(axis=0) for k in range(10)]
  )
  far = ((digits.x_test[:, None] - means) ** 2).sum(axis=(2, 3, 4))
  assert (far.argmin(axis=1) == digits.y_test).mean() > 0.85


def test_variants_change_what_they_say(digits):
  made = {name: load(dataset=f"digits_{name}") for name in images.VARIANTS}
  x = digits.x_train
  np.testing.assert_array_equal(made["inverted"].x_train, 255 - x)
  np.testing.assert_array_equal(made["inverted"].x_test, 255 - digits.x_test)
  for part in ("x_train", "x_test"):  # The right column becomes the top row.
    turned, upright = getattr(made["rotated"], part), getattr(digits, part)
    np.testing.assert_array_equal(turned[:, 0, 0], upright[:, 0, :, 7])
    np.testing.assert_array_equal(turned[:, 0, :, 0], upright[:, 0, 0, ::-1])
  noise = made["noisy"].x_train.astype(int) - x
  assert np.abs(noise).max() <= 96
  # Where nothing is cut off the noise is even, and not the same everywhere.
  inside = noise[(x > 96) & (x < 159)]
  assert abs(inside.mean()) < 3 and 50 < inside.std() < 60
  assert (noise[0] != noise[1]).any()
  for name in ("inverted", "rotated", "noisy"):
    np.testing.assert_array_equal(made[name].y_train, digits.y_train)
    np.testing.assert_array_equal(made[name].y_test, digits.y_test)
  moved = made["permuted"]
  np.testing.assert_array_equal(moved.x_train, x)
  pairs = set(zip(moved.y_train.tolist(), digits.y_train.tolist(), strict=True))
  assert len(pairs) == 10 and all(a != b for a, b in pairs)


def test_resizing(digits):
  twice = load(image_size=16)
  assert twice.shape == (1, 16, 16)
  # A bilinear enlargement keeps means, up to rounding.
  np.testing.assert_allclose(
    twice.x_train.mean(axis=(1, 2, 3)),
    digits.x_train.mean(axis=(1, 2, 3)),
    atol=1.0,
  )
  # By hand: halfway between 0 and 100, three quarters and one quarter.
  x = np.array([[[[0, 100]]]], np.uint8)
  assert images.resized(x, 4)[0, 0, 0].tolist() == [0, 25, 75, 100]
  # Shrinking averages: no pixel is lost.
  x = np.zeros((1, 1, 8, 8), np.uint8)
  x[0, 0, 3, 3] = 200
  assert images.resized(x, 4).sum() > 30
  assert images.resized(x, 8) is x


def test_a_file_of_keras_form(tmp_path):
  given = arrays()
  np.savez(tmp_path / "mine.npz", **given)
  found = load(dataset="mine", data_dir=str(tmp_path))
  np.testing.assert_array_equal(found.x_train[:, 0], given["x_train"])
  assert found.y_test.tolist() == [0, 1, 3]
  assert found.num_classes == 4
  few = load(
    dataset="mine", data_dir=str(tmp_path), train_images=2, test_images=1
  )
  assert len(few.x_train) == len(few.y_train) == 2 and len(few.x_test) == 1
  with pytest.raises(errors.ZooError, match="train_images is 7, and there are"):
    load(dataset="mine", data_dir=str(tmp_path), train_images=7)
  # Its variants need no file of their own.
  other = load(dataset="mine_inverted", data_dir=str(tmp_path))
  np.testing.assert_array_equal(other.x_train, 255 - found.x_train)


def test_colours(tmp_path):
  x = np.zeros((2, 4, 4, 3), np.uint8)
  x[..., 0], x[..., 2] = 30, 90
  given = arrays(x_train=x, y_train=np.array([0, 1]), x_test=x)
  given["y_test"] = np.array([0, 1])
  np.savez(tmp_path / "rgb.npz", **given)
  grey = load(dataset="rgb", data_dir=str(tmp_path))
  assert grey.shape == (1, 4, 4) and (grey.x_train == 40).all()
  colour = load(dataset="rgb", data_dir=str(tmp_path), grayscale=False)
  assert colour.shape == (3, 4, 4)
  assert colour.x_test[0, :, 1, 1].tolist() == [30, 0, 90]


DAMAGES = {
  "no key 'y_test'": {"y_test": None},
  "x_train is of type float32": {"x_train": np.zeros((6, 5, 4), np.float32)},
  "x_test is of type object": {"x_test": np.array([None, 1])},
  "y_train is of type float64": {"y_train": np.zeros(6)},
  "x_train has shape (6, 5)": {"x_train": np.zeros((6, 5), np.uint8)},
  "x_test has shape (3, 5, 4, 2)": {"x_test": np.zeros((3, 5, 4, 2), np.uint8)},
  "y_train has shape (5,) for 6 images": {"y_train": np.zeros(5, int)},
  "y_test has labels from -1 to 1": {"y_test": np.array([-1, 0, 1])},
  "images of (1, 5, 4) for training and of (1, 5, 5)": {
    "x_test": np.zeros((3, 5, 5), np.uint8)
  },
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_wrong_file_is_named(message, tmp_path):
  given = arrays(**DAMAGES[message])
  given = {k: v for k, v in given.items() if v is not None}
  np.savez(tmp_path / "mine.npz", **given)
  with pytest.raises(errors.ZooError) as caught:
    load(dataset="mine", data_dir=str(tmp_path))
  if "object" in message:
    message = "no readable npz file"  # Pickles are not opened.
  assert message in str(caught.value)
  assert "mine.npz" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_a_cut_file_is_named(keep, tmp_path):
  path = tmp_path / "mine.npz"
  np.savez_compressed(path, **arrays())
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(
    errors.ZooError, match=r"mine\.npz: .*(readable|damaged)"
  ) as caught:
    load(dataset="mine", data_dir=str(tmp_path))
  # Making the zoo anew, or a download that nobody knows, would not help.
  assert str(caught.value).endswith("restore the file from its source")
  path.rename(tmp_path / "mnist.npz")
  with pytest.raises(errors.ZooError, match=r"or remove it and add --download"):
    load(dataset="mnist", data_dir=str(tmp_path))


def test_what_is_there_without_a_download(tmp_path):
  np.savez(tmp_path / "mine.npz", **arrays())
  for name, there in (
    *(("digits", True), ("digits_noisy", True), ("mnist", False)),
    *(("mine", True), ("mine_inverted", True), ("mine_blurry", False)),
  ):
    options = images.ImageOptions(
      dataset=name, data_dir=str(tmp_path), download=True
    )
    assert images.are_there(options) == there


def test_a_flipped_bit_is_found(tmp_path):
  path = tmp_path / "mine.npz"
  np.savez(path, **arrays())
  bytes_ = bytearray(path.read_bytes())
  bytes_[len(bytes_) // 3] ^= 1
  path.write_bytes(bytes(bytes_))
  with pytest.raises(errors.ZooError, match=r"mine\.npz"):
    load(dataset="mine", data_dir=str(tmp_path))


def test_without_data_the_three_ways_are_named(tmp_path):
  with pytest.raises(errors.ZooError) as caught:
    load(dataset="mnist", data_dir=str(tmp_path))
  said = str(caught.value)
  assert str(tmp_path / "mnist.npz") in said
  for way in ("'digits'", "digits_inverted", "data_dir", "download", "cifar10"):
    assert way in said
  with pytest.raises(errors.ZooError, match="no images called 'digits_blurry'"):
    load(dataset="digits_blurry")
  with pytest.raises(ValueError, match="without folders"):
    load(dataset="a/b")
  with pytest.raises(ValueError, match="image_size"):
    load(image_size=-1)


def test_a_download_becomes_a_file(tmp_path, monkeypatch):
  asked = []

  class Rows(dict):
    def with_format(self, name):
      assert name == "numpy"
      return self

  def load_dataset(repository, configuration, split):
    asked.append((repository, configuration, split))
    x = arrays()[f"x_{split}"]
    return Rows(image=list(x), label=list(range(len(x))))

  hub = types.SimpleNamespace(load_dataset=load_dataset)
  monkeypatch.setitem(sys.modules, "datasets", hub)
  folder = tmp_path / "new"
  options = {"dataset": "svhn", "data_dir": str(folder), "download": True}
  found = load(**options)
  assert [configuration for _, configuration, _ in asked] == [
    "cropped_digits"
  ] * 2
  assert found.y_train.tolist() == [0, 1, 2, 3, 4, 5]
  np.testing.assert_array_equal(load(**options).x_train, found.x_train)
  assert len(asked) == 2, "the file is there now"


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
  options = {"dataset": "usps", "data_dir": str(tmp_path), "download": True}
  monkeypatch.setitem(sys.modules, "datasets", None)  # cannot be imported
  with pytest.raises(errors.ZooError, match=r"pip install -e '\.\[images\]'"):
    load(**options)

  def offline(*args, **kwargs):
    raise ConnectionError("no route")

  hub = types.SimpleNamespace(load_dataset=offline)
  monkeypatch.setitem(sys.modules, "datasets", hub)
  with pytest.raises(errors.ZooError, match=r"cannot be fetched \(no route\)"):
    load(**options)
  assert list(tmp_path.iterdir()) == []
