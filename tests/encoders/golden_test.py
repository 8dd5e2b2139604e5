"""Codes that no change may move: fixed networks, parameters and options.

`golden_codes.json` holds, for every encoder of the table, all of its options,
the paths and shapes of its parameters (the format of checkpoints), and codes of
fixed networks. Options stand in the file, so a default that changes moves
nothing here. Parameters are drawn by path and shape, so an initialiser that
changes moves nothing either. Codes that move on purpose, and encoders that are
new, are written by `pytest tests/encoders/golden_test.py --update-golden`.

An option that is gone must be taken from the file by hand (or by the update),
and only where it had its only remaining value: then the codes stay.
"""

import dataclasses
import json
import math
import pathlib
import zlib

import jax
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.networks import chunking, families

FILE = pathlib.Path(__file__).parents[1] / "fixtures" / "golden_codes.json"
UPDATE = "pytest tests/encoders/golden_test.py --update-golden"

# Codes are of size 1. A float32 sum in another order differs by 1e-7 of its
# size for each of a dozen steps, and normalisation and attention magnify that:
# with and without the compiler's optimisation the codes differ by up to 1e-6.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

FAST = {"xla_backend_optimization_level": "0"}  # Compiles faster.
SPECS = {
  "mlp": families.mlp((2, 5, 4, 1)),
  "mlp_tanh": families.mlp((3, 4, 2), "tanh", bias=False),
  "inr": families.inr((1, 4, 3, 1)),
  "cnn": families.cnn((1, 6, 6), (3, 2), 2, pools=(2, 1), num_classes=3),
  "cnn_flat": families.cnn(
    (1, 5, 5), (3,), 2, dense=(4,), num_classes=2, head="flatten"
  ),
  "resnet": families.resnet((1, 4, 4), (2, 3), num_classes=2),
  "transformer": families.transformer(
    (1, 4, 4), 2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
  ),
}
MIXED = (
  *("transformer", "mlp", "cnn", "mlp_tanh", "resnet"),
  *("cnn_flat", "mlp", "inr"),
)
DENSE = ("mlp",) * 3
CNN = ("cnn",) * 2
FLAT = ("cnn_flat",) * 2

SNE_RECOMMENDED = {
  **{"width": 16, "heads": 2, "chunk_function": "product", "chunk_blocks": 1},
  **{"layer_blocks": 1, "network_blocks": 1},
  **{"identifiers": "content", "identifier_dim": 8, "index_features": "io"},
  **{"layer_function": "sab", "network_function": "sab"},
  **{"form": "published", "norm": "pre", "activation": "gelu"},
  **{"level_again": True, "skip_tokens": True},
  **{"weight_scale": "place", "fan_in_scale": True},
}
NEURON = {"linear_rule": "neuron", "conv_rule": "neuron"}
FLAT_CHUNKS = {"chunk_size": 32, "linear_rule": "flat", "conv_rule": "kernel"}
CASES = {
  "sne": (
    "sne",
    SNE_RECOMMENDED,
    {"chunk_size": 34, **NEURON},
    (DENSE, MIXED),
  ),
  "sne_tensor_scale": (
    "sne",
    SNE_RECOMMENDED | {"weight_scale": "tensor"},
    {"chunk_size": 9, **NEURON},
    (CNN,),
  ),
  "sne_flat": ("sne", SNE_RECOMMENDED, FLAT_CHUNKS, (CNN,)),
  "sne_published": (
    "sne",
    {
      **{"width": 16, "heads": 2, "chunk_function": "sab", "chunk_blocks": 1},
      **{"layer_blocks": 1, "network_blocks": 1},
      **{"identifiers": "none", "index_features": "none"},
      **{"layer_function": "sab", "network_function": "sab"},
      **{"form": "published", "norm": "post", "activation": "relu"},
      **{"level_again": False, "skip_tokens": False},
      **{"weight_scale": "global", "fan_in_scale": False},
    },
    FLAT_CHUNKS,
    (DENSE, MIXED),
  ),
  "sne_responses": (
    "sne",
    SNE_RECOMMENDED
    | {"responses": "hidden", "response_inputs": 4, "response_width": 8},
    {"chunk_size": 34, **NEURON},
    (DENSE, MIXED),
  ),
  "sne_answers_apart": (
    "sne",
    SNE_RECOMMENDED
    | {
      **{"responses": "hidden", "response_inputs": 4, "response_readers": 2},
      **{"response_source": "noise", "response_order": "pooled"},
      **{"response_map": "additive", "response_join": "apart"},
    },
    {"chunk_size": 34, **NEURON},
    (DENSE,),
  ),
  "probe_gen": (
    "probe_gen",
    {"width": 8, "inputs": 3, "layers": 2},
    {},
    (DENSE, MIXED),
  ),
  "hidden_probe": (
    "hidden_probe",
    {"width": 8, "inputs": 3, "layers": 2, "unit_width": 8, "rank": 4},
    {},
    (DENSE, MIXED),
  ),
  "mlp": ("mlp", {"width": 8, "layers": 2}, {}, (DENSE, CNN)),
  "stat_nn": ("stat_nn", {"width": 8}, {}, (DENSE, CNN)),
  "stat_pool": ("stat_pool", {"width": 8}, {}, (DENSE, MIXED)),
  "architecture": ("architecture", {"width": 8}, {}, (DENSE, MIXED)),
  "deep_sets": (
    "deep_sets",
    {"width": 8, "heads": 2},
    {},
    (DENSE, MIXED),
  ),
  "set_transformer": (
    "set_transformer",
    {"width": 8, "heads": 2, "blocks": 1, "inducing": 3},
    {},
    (DENSE, MIXED),
  ),
  "nfn_np": (
    "nfn_np",
    {"width": 8, "channels": 4, "layers": 2},
    {},
    (DENSE, FLAT),
  ),
  "nfn_hnp": (
    "nfn_hnp",
    {"width": 8, "channels": 4, "layers": 2},
    {},
    (DENSE, FLAT),
  ),
  "nft": (
    "nft",
    {"width": 8, "channels": 4, "heads": 2, "blocks": 1},
    {},
    (DENSE, CNN),
  ),
  "dws": ("dws", {"width": 8, "channels": 4, "layers": 2}, {}, (DENSE,)),
  "neural_graph": (
    "neural_graph",
    {"width": 8, "layers": 2},
    {},
    (DENSE, MIXED),
  ),
  "neural_graph_transformer": (
    "neural_graph_transformer",
    {
      **{"width": 8, "edge_width": 4, "attention_width": 4, "node_hidden": 8},
      **{"edge_hidden": 8, "heads": 2, "layers": 2},
    },
    {},
    (DENSE, MIXED),
  ),
  "gmn": (
    "gmn",
    {"width": 8, "layers": 2, "undirected": True},
    {},
    (DENSE, MIXED),
  ),
  "scale_gmn": (
    "scale_gmn",
    {"width": 8, "layers": 2, "reverse": True},
    {},
    (DENSE, MIXED),
  ),
  "hyper_representation": (
    "hyper_representation",
    {
      **{"width": 8, "token_width": 8, "heads": 2, "blocks": 1},
      "feed_forward": 8,
    },
    {},
    (DENSE, CNN),
  ),
  "sane": (
    "sane",
    {
      **{"width": 8, "hidden": 8, "heads": 2, "blocks": 1},
      **{"token_size": 7, "window": 12, "halo": 4},
    },
    {},
    (DENSE, MIXED),
  ),
}
"""By case: encoder, options and chunk options (those that are not said are the
defaults of the day when the case was first written), and batches of specs."""


def networks_of(names):
  """Draws networks of these specs; none of their tensors is special."""
  rng = np.random.default_rng(zlib.crc32(" ".join(names).encode()))
  return [
    (
      SPECS[name],
      0.5 * rng.standard_normal(SPECS[name].num_weights, np.float32),
    )
    for name in names
  ]


def drawn(shapes):
  """Draws parameters by their path and shape; none are zero."""

  def draw(path, x):
    name = jax.tree_util.keystr(path)
    rng = np.random.default_rng(zlib.crc32(f"{name}{x.shape}".encode()))
    noise = rng.standard_normal(x.shape, np.float32)
    if x.ndim > 1:
      return noise / np.float32(math.sqrt(x.shape[0]))
    return np.float32(path[-1].key == "scale") + np.float32(0.3) * noise

  return jax.tree_util.tree_map_with_path(draw, shapes)


def codes_of(encoder, options, chunk_options, names):
  """Returns codes `[B, D]` and `path: shape` of the parameters, sorted."""
  networks = networks_of(names)
  specs = tuple(dict.fromkeys(spec for spec, _ in networks))
  row = table.row(encoder)
  measured = table.measure(encoder, row.options(**options), networks)
  built = table.build(encoder, options, chunk_options, measured)
  batch = built.make_packer(specs).pack(
    [specs.index(spec) for spec, _ in networks], [w for _, w in networks]
  )
  shapes = jax.eval_shape(built.module.init, jax.random.key(0), batch)
  apply = jax.jit(
    lambda p, b: built.module.apply(p, b, deterministic=True),
    compiler_options=FAST,
  )
  parameters = sorted(
    f"{jax.tree_util.keystr(path, simple=True, separator='/')}: {list(x.shape)}"
    for path, x in jax.tree_util.tree_leaves_with_path(shapes)
  )
  return np.asarray(apply(drawn(shapes), batch)), parameters


def resolved(cls, given, stored):
  """Returns all options: as the case says, as stored, or of today."""
  known = {field.name for field in dataclasses.fields(cls)}
  stored = {name: value for name, value in stored.items() if name in known}
  return dataclasses.asdict(cls(**(stored | given)))


def written(case, stored):
  """Returns what the file is to hold of a case."""
  encoder, options, chunk_options, batches = CASES[case]
  cls = table.row(encoder).options
  entry = {
    "options": resolved(cls, options, stored.get("options", {})),
    "chunk_options": resolved(
      chunking.ChunkOptions, chunk_options, stored.get("chunk_options", {})
    ),
    "parameters": [],
    "batches": {},
  }
  for names in batches:
    codes, parameters = codes_of(
      encoder, entry["options"], entry["chunk_options"], names
    )
    if parameters not in entry["parameters"]:  # Most depend on no spec.
      entry["parameters"].append(parameters)
    entry["batches"][" ".join(names)] = {
      "parameters": entry["parameters"].index(parameters),
      "codes": [[float(f"{x:.7g}") for x in code] for code in codes],
    }
  return entry


@pytest.fixture(scope="module")
def golden(request):
  """Returns what the file holds; with --update-golden, writes it first."""
  stored = json.loads(FILE.read_text()) if FILE.exists() else {}
  if request.config.getoption("--update-golden"):
    stored = {case: written(case, stored.get(case, {})) for case in CASES}
    FILE.write_text(as_text(stored))
  return stored


def as_text(entries):
  """Returns JSON with one code, or one set of options, on a line."""
  lines = []
  for case, entry in entries.items():
    parts = []
    for name in ("options", "chunk_options"):
      parts.append(f'  "{name}": {json.dumps(entry[name])}')
    lists = [
      "   [\n"
      + ",\n".join(f"    {json.dumps(line)}" for line in parameters)
      + "]"
      for parameters in entry["parameters"]
    ]
    parts.append('  "parameters": [\n' + ",\n".join(lists) + "]")
    batches = [
      f'   {json.dumps(names)}: {{"parameters": {batch["parameters"]},'
      ' "codes": [\n'
      + ",\n".join(f"    {json.dumps(code)}" for code in batch["codes"])
      + "]}"
      for names, batch in entry["batches"].items()
    ]
    parts.append('  "batches": {\n' + ",\n".join(batches) + "}")
    lines.append(f" {json.dumps(case)}: {{\n" + ",\n".join(parts) + "}")
  return "{\n" + ",\n".join(lines) + "\n}\n"


def test_every_encoder_has_golden_codes(golden):
  covered = {CASES[case][0] for case in golden if case in CASES}
  missing = sorted(set(table.ENCODERS) - covered)
  assert not missing, (
    f"encoders without golden codes: {', '.join(missing)}; add a case of each"
    f" to CASES, and run `{UPDATE}`"
  )
  assert set(golden) == set(CASES)
  for case, (*_, batches) in CASES.items():
    assert set(golden[case]["batches"]) == {" ".join(b) for b in batches}
  mixed = {name for name, *_, batches in CASES.values() if MIXED in batches}
  assert mixed == {n for n, r in table.ENCODERS.items() if "any" in r.accepts}


@pytest.mark.parametrize(
  ("case", "names"),
  [
    pytest.param(
      *(case, names),
      id=f"{case}-{'-'.join(dict.fromkeys(names))}",
      # Its other batches and the mixed ones of other cases are fast.
      marks=[pytest.mark.slow] * (case == "sne_responses" and len(names) > 1),
    )
    for case, (*_, batches) in CASES.items()
    for names in batches
  ],
)
def test_codes_are_golden(golden, case, names):
  entry = golden[case]
  batch = entry["batches"][" ".join(names)]
  codes, parameters = codes_of(
    CASES[case][0], entry["options"], entry["chunk_options"], names
  )
  assert parameters == entry["parameters"][batch["parameters"]]
  expected = np.array(batch["codes"])
  assert codes.shape == expected.shape
  np.testing.assert_allclose(
    codes,
    expected,
    **TOLERANCE,
    err_msg=f"if they must move: `{UPDATE}`, and a line in CHANGELOG.md",
  )
