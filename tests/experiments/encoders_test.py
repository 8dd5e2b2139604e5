"""`--encoder=NAME` is the only change: every encoder trains and predicts."""

import json

import numpy as np
import pytest

from experiments.tasks import members
from experiments.tasks import property as task
from sne_jax import predictor
from sne_jax.encoders import interface, table
from sne_jax.networks import families

SPECS = (families.inr((1, 4, 4, 1)), families.inr((1, 3, 3, 1)))
ITEMS = (
  *("mlp_width=8", "stat_width=8", "set_width=8", "set_heads=2"),
  *("nfn_width=8", "nfn_channels=4", "nfn_layers=2"),
  *("nft_width=8", "nft_channels=4", "nft_heads=2", "nft_blocks=1"),
  *("dws_width=8", "dws_channels=4", "dws_layers=2"),
  *("hyper_width=8", "hyper_token_width=8", "hyper_blocks=1"),
  *("hyper_feed_forward=8", "sane_width=8", "sane_hidden=8"),
  *("sane_blocks=1", "sane_heads=2"),
  *("graph_width=8", "graph_layers=2", "graph_transformer_width=8"),
  *("graph_transformer_edge_width=4", "graph_transformer_layers=2"),
  *("graph_transformer_attention_width=4", "graph_transformer_heads=2"),
  *("gmn_width=8", "gmn_layers=2", "scale_gmn_width=8", "scale_gmn_layers=2"),
)
SMALL = tuple(f"--encoder_option={item}" for item in ITEMS)


def test_a_mixed_zoo_is_refused_by_a_tied_encoder(launch, write_zoo, tmp_path):
  zoo = write_zoo(tmp_path / "zoo", specs=SPECS, count=12)
  line = launch(tmp_path / "run", zoo.path, "--encoder=nfn_hnp").error
  for words in ("nfn_hnp", *(s.describe() for s in SPECS)):
    assert words in line
  for words in interface.any_architecture():
    assert words in line


def test_a_predictor_refuses_other_architectures(load_options, tmp_path):
  options, data = load_options("--encoder=dws", *SMALL)
  description = json.loads(json.dumps(task.describe(options, data)))
  model = predictor.Predictor(description, None)
  other = SPECS[1]
  with pytest.raises(ValueError, match="one architecture") as error:
    model.predict([(other, np.zeros(other.num_weights, np.float32))])
  assert other.describe() in str(error.value)
  assert data.parts["train"].specs[0].describe() in str(error.value)


@pytest.fixture
def load_options(tiny_zoo, resolve, tiny_flags):
  """Returns `load_options(*flags) -> options, data`."""
  from sne_jax.zoo.store import store

  def make(*flags):
    options = resolve(*tiny_flags, f"--zoo={tiny_zoo}", *flags)
    return options, members.load(options, store.Zoo.open(tiny_zoo))

  return make


@pytest.mark.slow
@pytest.mark.parametrize("name", table.ENCODERS)
def test_every_encoder_trains_and_is_read_back(
  name, launch, tiny_zoo, tmp_path
):
  ended = launch(tmp_path / "run", tiny_zoo, f"--encoder={name}", *SMALL)
  assert ended.code == 0, ended.err
  model = predictor.Predictor.load(tmp_path / "run" / "seed0")
  spec = SPECS[0]
  weights = np.ones(spec.num_weights, np.float32)
  assert np.isfinite(model.predict([(spec, weights)])).all()
  assert model.function(spec)(weights).shape == (1,)
