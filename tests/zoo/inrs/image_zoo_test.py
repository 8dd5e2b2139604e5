"""Images as networks: what a zoo of them holds, and how it is made."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.classifiers import images
from sne_jax.zoo.inrs import coordinates, image_options, image_zoo
from sne_jax.zoo.public import inrs as public

TINY = image_options.ImageInrOptions(
  hidden=6,
  refits=2,
  max_steps=60,
  check_every=20,
  psnr=17.5,
  learning_rate=5e-3,
  validation_share=0.4,
  batch_members=4,
)


def pictures(channels=3, shape=(4, 5), train=5, test=3):
  """Images that are not the same turned, mirrored, or with colours changed."""
  rng = np.random.default_rng(0)
  draw = lambda n: rng.integers(0, 256, (n, channels, *shape), np.uint8)
  labels = rng.integers(0, 3, train + test)
  return images.Images(
    draw(train), labels[:train], draw(test), labels[train:], 3
  )


def made(path, options=TINY, data=None, **more):
  data = data or pictures()
  return image_zoo.generate_image_inr_zoo(
    path, options, data, dataset="mine", **more
  )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  return made(tmp_path_factory.mktemp("made") / "zoo")


def by_hand(options, weights, points):
  """The network in numpy and float64, written without the library."""
  hidden, place, values = options.hidden, 0, np.asarray(points, np.float64)
  sizes = [2, hidden, hidden, 3]
  for level, (inputs, outputs) in enumerate(
    zip(sizes[:-1], sizes[1:], strict=True)
  ):
    matrix = weights[place : place + inputs * outputs].reshape(outputs, inputs)
    place += inputs * outputs
    bias = weights[place : place + outputs]
    place += outputs
    values = values @ matrix.T.astype(np.float64) + bias
    values = np.sin(30 * values) if level < 2 else values
  assert place == len(weights)
  return values


def image_by_hand(options, weights):
  """Pixels in [0, 1], in the convention of each form."""
  image = np.zeros((3, 4, 5))
  for i, down in enumerate(np.linspace(-1, 1, 4)):
    for j, right in enumerate(np.linspace(-1, 1, 5)):
      if options.form == "dws":  # The first coordinate runs along a row.
        value = by_hand(options, weights, [[right, down]])[0] + 0.5
      else:
        value = (by_hand(options, weights, [[down, right]])[0] + 1) / 2
      image[:, i, j] = value
  return image


@pytest.mark.parametrize("form", coordinates.FORMS)
def test_errors_and_images_are_those_of_the_stored_weights(form, tmp_path):
  options = dataclasses.replace(TINY, form=form, refits=1, max_steps=20)
  data = pictures(train=3, test=1)
  zoo = made(tmp_path / "zoo", options, data)
  drawn = image_zoo.rendered(zoo.specs[0], zoo.weights(), 4, 5)
  peak = 1.0 if form == "dws" else 2.0
  every = [*data.x_train, *data.x_test]
  for place, image in enumerate(every):
    hand = image_by_hand(options, zoo.weights()[place])
    np.testing.assert_allclose(drawn[place], hand, atol=1e-4)
    error = np.mean((peak * (hand - image / 255)) ** 2)
    stored = zoo.property("reconstruction_error")[place]
    np.testing.assert_allclose(stored, error, rtol=1e-3)
    psnr = 10 * np.log10(peak**2 / error)
    np.testing.assert_allclose(zoo.property("psnr")[place], psnr, atol=0.01)


def test_networks_show_their_own_image_and_no_other(tmp_path):
  """Long enough a training to tell; and the control, another's image."""
  options = dataclasses.replace(
    TINY, refits=1, max_steps=400, psnr=30.0, hidden=16, batch_members=0
  )
  data = pictures(train=3, test=1)
  zoo = made(tmp_path / "zoo", options, data)
  drawn = image_zoo.rendered(zoo.specs[0], zoo.weights()[:3], 4, 5)
  away = lambda other: np.abs(drawn - data.x_train[other] / 255).mean((1, 2, 3))
  assert (away([0, 1, 2]) < 0.1).all()
  assert (away([1, 2, 0]) > 0.2).all()


def test_members_say_what_they_are(zoo):
  assert len(zoo) == 5 * 2 + 3
  assert zoo.specs == (families.inr((2, 6, 6, 3), 30.0, 0.5),)
  data = pictures()
  image, part = zoo.property("image"), zoo.property("part")
  want = [
    (data.y_train if p == "train" else data.y_test)[i]
    for p, i in zip(part, image, strict=True)
  ]
  np.testing.assert_array_equal(zoo.property("label"), want)
  assert zoo.property("refit").tolist() == [0, 1] * 5 + [0] * 3
  assert len(set(zoo.property("network"))) == 5 + 3
  steps, reached = zoo.property("steps"), zoo.property("converged")
  assert set(steps) <= {20, 40, 60} and (steps[~reached] == 60).all()
  np.testing.assert_array_equal(reached, zoo.property("psnr") >= TINY.psnr)
  assert reached.any() and not reached.all(), "the test must see both"
  # As published zoos have it.
  assert {"label", "image"} <= set(zoo.properties)
  assert public.coordinates is coordinates.coordinates


def test_all_networks_of_an_image_are_in_one_part(zoo):
  split, network = zoo.split("default"), zoo.property("network")
  assert {part: len(rows) for part, rows in split.items()} == {
    **{"train": 6, "val": 4, "test": 3}
  }
  parts = [set(network[rows].tolist()) for rows in split.values()]
  assert len(set.union(*parts)) == sum(map(len, parts))
  assert set(zoo.property("part")[split["test"]]) == {"test"}


def test_refits_begin_elsewhere_and_images_do_not_move_each_other(zoo):
  weights = zoo.weights()
  assert np.abs(weights[0] - weights[1]).max() > 1e-2
  # A network is a function of its image and refit: not of how many there are.
  fewer = pictures()
  fewer = fewer._replace(x_train=fewer.x_train[:3], y_train=fewer.y_train[:3])
  keys = lambda data: jax.random.key_data(
    image_zoo._keys(0, image_zoo.planned(TINY, data))
  )
  some, all_of = np.asarray(keys(fewer)), np.asarray(keys(pictures()))
  np.testing.assert_array_equal(some[:6], all_of[:6])
  np.testing.assert_array_equal(some[6:], all_of[10:])
  assert len({tuple(row) for row in all_of.tolist()}) == len(all_of)


def test_breaking_off_changes_nothing(zoo, tmp_path):
  class Stop(Exception):
    """What ends the first attempt."""

  def stop(done, *_):
    if done > 4:
      raise Stop

  with pytest.raises(Stop):
    made(tmp_path / "zoo", progress=stop)
  assert os.listdir(tmp_path / "zoo.partial")
  assert not os.path.exists(tmp_path / "zoo")
  seen = []
  again = made(tmp_path / "zoo", progress=lambda *said: seen.append(said))
  assert "there already" in seen[0][2]
  files = lambda zoo: {
    file.name: file.read_bytes() for file in pathlib.Path(zoo.path).iterdir()
  }
  assert files(again) == files(zoo)
  assert not os.path.exists(tmp_path / "zoo.partial")


def test_other_options_and_other_images_are_refused(zoo):
  other = dataclasses.replace(TINY, form="nfn")
  with pytest.raises(errors.ZooError, match="form is 'dws' there, 'nfn' asked"):
    made(zoo.path, other)
  data = pictures()
  data.x_train[0, 0, 0, 0] ^= 1
  with pytest.raises(errors.ZooError, match="images is"):
    made(zoo.path, data=data)


def test_a_split_without_images_is_refused(tmp_path):
  with pytest.raises(ValueError, match="take more images, or another share"):
    made(tmp_path / "zoo", data=pictures(train=1))
  assert not os.path.exists(tmp_path / "zoo")


@pytest.mark.parametrize(
  ("form", "first", "last", "biases"),
  [
    ("dws", (6 / 2) ** 0.5 / 30, 32**-0.5, False),
    ("nfn", 1 / 2, (6 / 32) ** 0.5 / 30, True),
  ],
)
def test_first_weights_are_drawn_as_published(form, first, last, biases):
  options = image_options.ImageInrOptions(form=form)
  spec = image_options.inr_spec(options)
  draw = lambda key: image_options.first_weights(spec, form, key)
  tensors = jax.vmap(draw)(jax.random.split(jax.random.key(0), 200))
  reach = {name: np.abs(value).max() for name, value in tensors.items()}
  hidden = (6 / 32) ** 0.5 / 30
  for level, want in enumerate((first, hidden, last)):
    assert 0.98 * want < reach[f"layer{level}.weight"] <= want * 1.0001
  for level, fan_in in enumerate((2, 32, 32)):
    got, want = reach[f"layer{level}.bias"], fan_in**-0.5
    if biases or level == 2:
      assert 0.95 * want < got <= want * 1.0001
    else:
      assert got == 0


def test_what_is_no_image_is_not_drawn():
  for spec in (families.inr((1, 4, 1)), families.mlp((2, 4, 1))):
    assert not image_zoo.is_image(spec)
    with pytest.raises(ValueError, match="is no image"):
      image_zoo.rendered(spec, np.zeros((1, spec.num_weights)), 4)
  odd = families.inr((2, 4, 1), output_offset=0.25)
  with pytest.raises(ValueError, match="is no image"):
    image_zoo.form_of(odd)
