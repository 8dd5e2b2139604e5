"""Predictors of masks: trained, resumed, saved, and what they refuse."""

import jax
import numpy as np
import pytest

import sne_jax
from sne_jax import masking
from sne_jax.encoders.functionals import nfn
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.training import train_state, workdirs
from sne_jax.networks import families, symmetry
from sne_jax.zoo.tickets import pruning

pytestmark = pytest.mark.slow

SPEC = families.mlp((3, 6, 5, 2), "relu")
RECIPE = {
  "encoder": "nfn_hnp",
  "options": nfn.NFNOptions(channels=4, layers=1),
  "data": sne_jax.DataOptions(batch_size=4),
  "devices": 1,
  "optimizer": sne_jax.OptimizerOptions(learning_rate=1e-2),
}
COUNTS = pruning.counts(SPEC, 0.3)


def tickets(count, seed, spec=SPEC):
  """Networks whose smallest weights are to be kept."""
  rng = np.random.default_rng(seed)
  pairs = [(spec, families.random_weights(spec, rng)) for _ in range(count)]
  scores = np.stack([-np.abs(weights) for _, weights in pairs])
  masks = pruning.best(spec, scores, pruning.counts(spec, 0.3))
  return masking.Tickets(Networks.of(pairs), masks)


TRAIN, VAL = tickets(24, 0), tickets(6, 1)


def fit(folder=None, steps=6, programs=None, train=TRAIN, val=VAL, **changes):
  training = sne_jax.TrainOptions(
    num_steps=steps, eval_every=3, save_every=3, log_every=3
  )
  return sne_jax.fit_masker(
    *(train, val),
    workdir=folder,
    training=training,
    programs=programs,
    **(RECIPE | changes),
  )


@pytest.fixture(scope="module")
def programs():
  return {}


@pytest.fixture(scope="module")
def trained(programs, tmp_path_factory):
  folder = tmp_path_factory.mktemp("masker") / "seed0"
  return folder, fit(folder, steps=150, programs=programs)


def agreement(masks, wanted):
  """Share of what is wanted that is kept, of what can be pruned."""
  some = pruning.prunable(SPEC)
  return (masks & wanted)[:, some].sum() / wanted[:, some].sum()


def test_masks_of_networks_never_seen_are_predicted(trained):
  _, masker = trained
  masks = masker.masks(VAL.networks)
  assert (pruning.kept(SPEC, masks) == COUNTS).all()
  assert masks[:, ~pruning.prunable(SPEC)].all()
  assert agreement(masks, VAL.masks) > 0.5  # Chance: 0.3.
  assert masker.density == pytest.approx(COUNTS.sum() / 58, rel=1e-6)


def test_the_loss_is_worked_out_by_hand(trained):
  """Cross-entropy of what can be pruned; both classes weigh the same."""
  _, masker = trained
  logits = masker.logits(VAL.networks).astype(np.float64)
  some, total = pruning.prunable(SPEC), 0.0
  probability = 1 / (1 + np.exp(-logits[:, some]))
  kept = VAL.masks[:, some]
  total -= np.log(probability[kept]).mean() / 2
  total -= np.log(1 - probability[~kept]).mean() / 2
  assert masker.results["val_loss"] == pytest.approx(total, rel=1e-4)


def test_a_permuted_network_gets_the_permuted_mask(trained):
  """And one that is shuffled without regard to neurons another."""
  _, masker = trained
  pairs = VAL.networks.pairs()
  logits, masks = masker.logits(pairs), masker.masks(pairs)
  far, same = [], []
  for draw in (symmetry.draw_permutation, symmetry.draw_input_shuffle):
    order = draw(SPEC, np.random.default_rng(1))
    moved = [(SPEC, weights[order]) for _, weights in pairs]
    far.append(np.abs(masker.logits(moved) - logits[:, order]).max())
    same.append((masker.masks(moved) == masks[:, order]).all())
  assert far[0] < 1e-5 < 1e-2 < far[1]
  assert same == [True, False]


def test_what_is_loaded_predicts_as_what_was_trained(trained, tmp_path):
  folder, masker = trained
  masker.save(tmp_path / "saved")
  for place in (folder, folder.parent, tmp_path / "saved"):
    loaded = sne_jax.Masker.load(place)
    np.testing.assert_array_equal(
      loaded.logits(VAL.networks), masker.logits(VAL.networks)
    )
  with pytest.raises(ValueError, match="holds a masker already"):
    masker.save(tmp_path / "saved")
  path = tmp_path / "saved" / workdirs.MASKER_FILE
  path.write_text(path.read_text().replace("density", "densitx"))
  with pytest.raises(ValueError, match=r"masker\.json"):
    sne_jax.Masker.load(tmp_path / "saved")
  with pytest.raises(ValueError, match="run of --mask, or the folder of a sav"):
    sne_jax.Masker.load(tmp_path)


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
  resumed = fit(tmp_path / "broken", programs=programs)
  jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
  other = VAL._replace(masks=VAL.masks[::-1].copy())
  with pytest.raises(ValueError, match="masks"):
    fit(tmp_path / "whole", val=other, programs=programs)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"encoder": "stat_pool", "options": None}, "stat_pool cannot predict mas"),
    ({"positive_weight": -1.0}, "positive_weight is -1.0"),
    ({"data": sne_jax.DataOptions(batch_size=64)}, "there are 24 training"),
    ({"train": TRAIN._replace(masks=TRAIN.masks[:, 1:])}, "masks are of 70 we"),
    ({"val": VAL._replace(masks=VAL.masks[1:])}, "6 val networks and 5 masks"),
    (
      {"train": TRAIN._replace(masks=np.ones(TRAIN.masks.shape, bool))},
      "keep all of the weights",
    ),
    ({"val": tickets(3, 0, families.mlp((3, 4, 2)))}, "is of one architecture"),
  ],
)
def test_what_cannot_be_is_one_line(changes, said):
  with pytest.raises(ValueError, match=said) as error:
    fit(**changes)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("spec", "said"),
  [
    (families.mlp((3, 6, 2), "relu"), "this masker reads mlp of 71 .*this is"),
    (
      families.mlp((3, 6, 5, 2), "tanh"),
      "its activations are tanh, tanh, none",
    ),
  ],
)
def test_networks_of_another_kind_are_refused(trained, spec, said):
  weights = families.random_weights(spec, np.random.default_rng(0))
  with pytest.raises(ValueError, match=said):
    trained[1].masks((spec, weights))


@pytest.mark.parametrize("kept", [[1, 2], [-1, 2, 3], [19, 2, 3]])
def test_numbers_that_cannot_be_kept_are_refused(trained, kept):
  with pytest.raises(ValueError, match=r"for each of .*, at most 18, 30, 10"):
    trained[1].masks(VAL.networks, kept)


def test_one_network_may_have_numbers_of_its_own(trained):
  _, masker = trained
  kept = np.array([[4, 0, 10]] * 5 + [[0, 30, 1]])
  masks = masker.masks(VAL.networks, kept)
  np.testing.assert_array_equal(pruning.kept(SPEC, masks), kept)
