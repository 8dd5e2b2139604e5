"""Editors: trained, resumed, saved, and what they refuse."""

import jax
import numpy as np
import pytest

import sne_jax
from sne_jax import editing
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.training import train_state, workdirs
from sne_jax.networks import families, symmetry

SPEC = families.inr((2, 5, 4, 1), output_offset=0.5)
RECIPE = {
  "encoder": "nfn_hnp",
  "data": sne_jax.DataOptions(batch_size=4),
  "devices": 1,
  "optimizer": sne_jax.OptimizerOptions(learning_rate=1e-2),
}


def examples(count, seed, spec=SPEC):
  """Networks that are to become black."""
  rng = np.random.default_rng(seed)
  pairs = [(spec, families.random_weights(spec, rng)) for _ in range(count)]
  images = np.zeros((count, spec.tensors[-1].shape[0], 4, 4), np.uint8)
  return editing.Examples(Networks.of(pairs), images)


TRAIN, VAL = examples(12, 0), examples(4, 1)


def options(**changes):
  from sne_jax.encoders.functionals import nfn

  return nfn.NFNOptions(**({"channels": 4, "layers": 1} | changes))


def fit(folder=None, steps=6, programs=None, **changes):
  how = RECIPE | {"options": options()} | changes
  training = sne_jax.TrainOptions(
    num_steps=steps, eval_every=3, save_every=3, log_every=3
  )
  return sne_jax.fit_editor(
    *(TRAIN, VAL), workdir=folder, training=training, programs=programs, **how
  )


@pytest.fixture(scope="module")
def programs():
  return {}


@pytest.fixture(scope="module")
def trained(programs, tmp_path_factory):
  folder = tmp_path_factory.mktemp("editor") / "seed0"
  return folder, fit(folder, steps=30, programs=programs)


def weights_of(pairs):
  return np.stack([weights for _, weights in pairs])


def test_the_loss_falls(trained):
  _, editor = trained
  before = weights_of(VAL.networks.pairs())
  after = weights_of(editor.edit(VAL.networks))
  shown = [
    np.mean(
      (2 * editor.rendered(list(zip([SPEC] * 4, w, strict=True)), 4)) ** 2
    )
    for w in (before, after)
  ]
  assert shown[1] < 0.8 * shown[0]
  assert editor.results["val_loss"] == pytest.approx(shown[1], rel=1e-4)


def test_what_is_loaded_edits_as_what_was_trained(trained, tmp_path):
  folder, editor = trained
  expected = weights_of(editor.edit(VAL.networks))
  editor.save(tmp_path / "saved")
  for place in (folder, folder.parent, tmp_path / "saved"):
    loaded = sne_jax.Editor.load(place)
    assert loaded.edit_name == "dilate"
    np.testing.assert_array_equal(
      weights_of(loaded.edit(VAL.networks)), expected
    )
  with pytest.raises(ValueError, match="holds an editor already"):
    editor.save(tmp_path / "saved")


def test_damage_is_found(trained, tmp_path):
  _, editor = trained
  editor.save(tmp_path)
  path = tmp_path / workdirs.EDITOR_FILE
  path.write_text(path.read_text().replace("dilate", "dilatf"))
  with pytest.raises(ValueError, match=r"editor\.json"):
    sne_jax.Editor.load(tmp_path)


def test_a_scale_of_zero_changes_no_pixel(trained):
  _, editor = trained
  still = jax.tree.map(np.array, editor.params)
  still["params"]["scale"] = np.zeros(len(SPEC.tensors), np.float32)
  nothing = sne_jax.Editor(editor.description, still)
  edited = nothing.edit(VAL.networks)
  np.testing.assert_array_equal(
    weights_of(edited), weights_of(VAL.networks.pairs())
  )
  np.testing.assert_array_equal(
    nothing.rendered(edited, 5), nothing.rendered(VAL.networks, 5)
  )
  assert not np.array_equal(
    editor.rendered(editor.edit(VAL.networks), 5),
    nothing.rendered(edited, 5),
  )


def test_permuted_networks_become_permuted_edits(trained):
  _, editor = trained
  before = weights_of(VAL.networks.pairs())
  change = weights_of(editor.edit(VAL.networks)) - before
  far = []
  for draw in (symmetry.draw_permutation, symmetry.draw_input_shuffle):
    order = draw(SPEC, np.random.default_rng(1))
    moved = [(SPEC, row[order]) for row in before]
    of_moved = weights_of(editor.edit(moved)) - before[:, order]
    far.append(np.abs(of_moved - change[:, order]).max())
  assert far[0] < 1e-5 < 1e-4 < far[1]


def test_a_resumed_training_has_the_same_bits(programs, tmp_path):
  whole = fit(tmp_path / "whole", programs=programs)

  class Stopped(Exception):
    pass

  saved = train_state.Checkpoints.save

  def save(self, step, *rest):
    saved(self, step, *rest)
    if step == 3:
      raise Stopped

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_state.Checkpoints, "save", save)
    with pytest.raises(Stopped):
      fit(tmp_path / "broken", programs=programs)
  with pytest.raises(sne_jax.editor.EditorError, match="has not finished"):
    sne_jax.Editor.load(tmp_path / "broken")
  resumed = fit(tmp_path / "broken", programs=programs)
  jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
  other = fit(programs=programs, seed=1)
  assert other.results["val_loss"] != whole.results["val_loss"]
  images = VAL.images + np.uint8(1)
  with pytest.raises(ValueError, match="images"):
    sne_jax.fit_editor(
      TRAIN,
      VAL._replace(images=images),
      workdir=tmp_path / "whole",
      training=sne_jax.TrainOptions(num_steps=6, eval_every=3, save_every=3),
      options=options(),
      **RECIPE,
    )


MLP = families.mlp((2, 5, 4, 1), "relu")
CNN = families.cnn((1, 4, 4), (3,), 2, num_classes=2)
OTHER_FORM = families.inr((2, 5, 4, 1), output_offset=0.0)


@pytest.mark.parametrize(
  ("spec", "said"),
  [
    (MLP, "its activations are relu, relu, none, and those of the training"),
    (CNN, "this editor edits inr of 44 weights .*, and this is cnn"),
    (OTHER_FORM, "is an image of another form .*output_offset=0.0"),
  ],
)
def test_what_is_no_image_of_its_kind_is_refused(trained, spec, said):
  weights = families.random_weights(spec, np.random.default_rng(0))
  with pytest.raises(ValueError, match=said) as error:
    trained[1].edit((spec, weights))
  assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(trained):
  weights = np.full(SPEC.num_weights, np.nan, np.float32)
  with pytest.raises(ValueError, match="network 0 .*not finite"):
    trained[1].edit((SPEC, weights))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"encoder": "stat_pool", "options": None}, "stat_pool cannot edit"),
    ({"options": sne_jax.SNEOptions()}, "takes NFNOptions"),
    ({"data": sne_jax.DataOptions(batch_size=64)}, "there are 12 training"),
  ],
)
def test_options_that_cannot_be(changes, said):
  with pytest.raises(ValueError, match=said):
    fit(**changes)


def test_networks_and_images_have_to_fit():
  with pytest.raises(ValueError, match="is no image"):
    sne_jax.fit_editor(examples(4, 0, MLP), examples(4, 0, MLP), **RECIPE)
  short = TRAIN._replace(images=TRAIN.images[:3])
  with pytest.raises(ValueError, match="12 networks of 1 channels"):
    sne_jax.fit_editor(short, VAL, **RECIPE)
  with pytest.raises(
    sne_jax.editor.EditorError, match=r"holds no editor\.json"
  ):
    sne_jax.Editor.load("/nonexistent")
