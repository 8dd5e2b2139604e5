"""Every case of the authors' fixtures of NFN and DWS layers, one by one.

The parameters of the authors' modules are loaded into ours, and the outputs
compared. The cases are those that the files hold, so that none is left out.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.baselines import statistics
from sne_jax.encoders.functionals import (
  dws,
  feature_layers,
  features,
  nfn_linear,
)
from sne_jax.networks import families
from tests.encoders import parity_torch

FAST = {"xla_backend_optimization_level": "0"}
FOLDER = pathlib.Path(__file__).parents[1] / "fixtures"
CNN = families.cnn((1, 8, 8), (3, 4), 3, dense=(5,), num_classes=2)
NFN = {
  "nfn_linear": {"mlp": families.mlp((3, 5, 4, 2)), "cnn": CNN},
  "nfn_linear_cnn_np": {"cnn": CNN},
  "nfn_linear_cnn_hnp": {"cnn": CNN},
  "nfn_linear_l2": {"mlp": families.mlp((3, 4, 2))},
}
DWS = {
  "dws": (2, 5, 4, 3, 1),
  "dws_extra": (2, 5, 4, 3, 1),
  "dws_multi_output": (3, 4, 3, 2),
}


@functools.cache
def fixture(file):
  return dict(np.load(FOLDER / f"{file}.npz"))


def cases(files, ending):
  """Returns `(file, case, output)` of all arrays whose name has `/out`."""
  return sorted(
    {
      (file, name.split("/")[0], name.split("/")[1])
      for file in files
      for name in np.load(FOLDER / f"{file}.npz").files
      if "/out" in name and ending(name.split("/")[0])
    }
  )


def is_layer(case):
  return "to" in case.rsplit("_", 1)[-1]


def parameters(file, case):
  prefix = f"{case}/param/"
  return {
    name.removeprefix(prefix): value
    for name, value in fixture(file).items()
    if name.startswith(prefix)
  }


def nfn_features(file, prefix, count):
  """Reads features of the authors' axis order, [B, c, out, in, h, w]."""
  weights, biases = [], []
  for l in range(count):
    w = fixture(file)[f"{prefix}/w{l}"]
    w = np.transpose(w.reshape(*w.shape[:4], -1), (0, 2, 3, 1, 4))
    weights.append(w.reshape(*w.shape[:3], -1))
    biases.append(np.swapaxes(fixture(file)[f"{prefix}/b{l}"], 1, 2))
  return features.Features(tuple(weights), tuple(biases))


def dws_features(file, prefix, count):
  """Reads features of the authors' axis order, [B, in, out, F]."""
  found = fixture(file)
  return features.Features(
    tuple(np.swapaxes(found[f"{prefix}/w{l}"], 1, 2) for l in range(count)),
    tuple(found[f"{prefix}/b{l}"] for l in range(count)),
  )


def run(module, values, x):
  apply = lambda p, x: module.apply({"params": p}, x)
  return jax.jit(apply, compiler_options=FAST)(values, x)


def close(found, expected):
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("file", "case", "out"), cases(NFN, is_layer))
def test_nfn_layers_give_the_authors_numbers(file, case, out):
  net, kind, channels = case.split("_")
  into, outputs = map(int, channels.split("to"))
  plan = features.layout_of(NFN[file][net], "nfn", least=1)
  module = {
    "np": nfn_linear.NPLinear(plan, outputs),
    "npio": nfn_linear.NPLinear(plan, outputs, io_embed=True),
    "hnp": nfn_linear.HNPLinear(plan, outputs, complete=False),
    "pt": feature_layers.Pointwise(plan, outputs),
  }[kind]
  values = parity_torch.params_from_torch(parameters(file, case))
  x = nfn_features(file, f"{net}/in{into}", len(plan))
  close(run(module, values, x), nfn_features(file, f"{case}/out", len(plan)))


@pytest.mark.parametrize(
  ("file", "case", "out"), cases(NFN, lambda case: not is_layer(case))
)
def test_nfn_pools_and_statistics_give_the_authors_numbers(file, case, out):
  net, kind = case.split("_")[:2]
  channels = int(case.rpartition("_c")[2])
  spec = NFN[file][net]
  plan = features.layout_of(spec, "nfn", least=1)
  x = nfn_features(file, f"{net}/in{channels}", len(plan))
  x = jax.tree.map(jnp.asarray, x)
  if kind == "stat":
    rows = np.asarray(plan.flat(x))
    parts = [
      statistics.tensor_statistics(spec, rows[..., c]) for c in range(channels)
    ]
    found = np.stack(parts, axis=1)
  else:
    pools = {"np": feature_layers.np_pool, "hnp": feature_layers.hnp_pool}
    found = pools[kind](plan, x)
  close(found, fixture(file)[f"{case}/{out}"])


@pytest.mark.parametrize(("file", "case", "out"), cases(DWS, is_layer))
def test_dws_layers_give_the_authors_numbers(file, case, out):
  plan = features.layout_of(families.mlp(DWS[file]), "dws")
  into, outputs = map(int, case.rsplit("_", 1)[-1].split("to"))
  how = out.partition("_")[2] or ("mean" if "mean" in case else "max")
  x = dws_features(file, f"in{into}", len(plan))
  given = parameters(file, case)
  if case.startswith("inv"):
    values = parity_torch.params_from_torch(
      {"layer.weight": given["layer.0.weight"]}
      | {"layer.bias": given["layer.0.bias"]}
    )
    module = dws.InvariantLayer(plan, outputs, how)
    close(run(module, values, x), fixture(file)[f"{case}/{out}"])
    return
  options = dws.DWSOptions(
    reduction=how,
    complete=False,
    diagonal="diag" in case,
    set_layer="sab" if "sab" in case else "ds",
    heads=4,
  )
  module = dws.DWSLayer(plan, outputs, options)
  values = parity_torch.dws_params_from_torch(given)
  expected = dws_features(file, f"{case}/{out}", len(plan))
  close(run(module, values, x), expected)


def test_no_case_is_left_out():
  """As many as the authors' modules were run for."""
  counts = [
    len(cases(NFN, is_layer)),
    len(cases(NFN, lambda case: not is_layer(case))),
    len(cases(DWS, is_layer)),
  ]
  assert counts == [25, 18, 14]
