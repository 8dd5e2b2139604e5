"""Encodes networks of 1 M to 124 M weights from files: seconds and memory.

Every network is a safetensors file of random float32 weights in the naming of
its library; its spec is found from names and shapes (MLPs are given theirs).
Every one is encoded by a fresh SNE of random parameters, in a process of its
own, whose largest resident memory counts from the moment when all is imported
and no file has been opened.

Dimensions: `P` weights of a network.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from benchmarks import results
from sne_jax import checkpoints
from sne_jax.encoders import interface, table
from sne_jax.encoders.sne import options as sne_options
from sne_jax.learning.training import program
from sne_jax.networks import chunking, families
from sne_jax.networks.spec import NetworkSpec

Shapes = dict[str, tuple[int, ...]]


def resnet_18() -> Shapes:
  """Returns the names and shapes of torchvision's ResNet-18."""
  shapes: Shapes = {}

  def conv(name, norm, out, into, side):
    shapes[f"{name}.weight"] = (out, into, side, side)
    for part in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{norm}.{part}"] = (out,)

  conv("conv1", "bn1", 64, 3, 7)
  into = 64
  for stage, out in enumerate((64, 128, 256, 512), 1):
    for block in range(2):
      name = f"layer{stage}.{block}"
      conv(f"{name}.conv1", f"{name}.bn1", out, into, 3)
      conv(f"{name}.conv2", f"{name}.bn2", out, out, 3)
      if into != out:
        conv(f"{name}.downsample.0", f"{name}.downsample.1", out, into, 1)
      into = out
  return shapes | _layer("fc", (1000, 512))


def vit_b_16() -> Shapes:
  """Returns the names and shapes of torchvision's ViT-B/16."""
  dim, hidden = 768, 3072
  shapes: Shapes = {
    "class_token": (1, 1, dim),
    **_layer("conv_proj", (dim, 3, 16, 16)),
    "encoder.pos_embedding": (1, 197, dim),
  }
  for number in range(12):
    layer = f"encoder.layers.encoder_layer_{number}"
    shapes |= {
      **_layer(f"{layer}.ln_1", (dim,)),
      f"{layer}.self_attention.in_proj_weight": (3 * dim, dim),
      f"{layer}.self_attention.in_proj_bias": (3 * dim,),
      **_layer(f"{layer}.self_attention.out_proj", (dim, dim)),
      **_layer(f"{layer}.ln_2", (dim,)),
      **_layer(f"{layer}.mlp.0", (hidden, dim)),
      **_layer(f"{layer}.mlp.3", (dim, hidden)),
    }
  return (
    shapes | _layer("encoder.ln", (dim,)) | _layer("heads.head", (1000, dim))
  )


def gpt_2() -> Shapes:
  """Returns the names and shapes of GPT-2 as `transformers` saves it."""
  dim = 768
  shapes: Shapes = {"wte.weight": (50257, dim), "wpe.weight": (1024, dim)}
  for number in range(12):
    layer = f"h.{number}"
    shapes |= {
      **_layer(f"{layer}.ln_1", (dim,)),
      **_layer(f"{layer}.attn.c_attn", (dim, 3 * dim), out=-1),
      **_layer(f"{layer}.attn.c_proj", (dim, dim), out=-1),
      **_layer(f"{layer}.ln_2", (dim,)),
      **_layer(f"{layer}.mlp.c_fc", (dim, 4 * dim), out=-1),
      **_layer(f"{layer}.mlp.c_proj", (4 * dim, dim), out=-1),
    }
  return shapes | _layer("ln_f", (dim,))


def _layer(name: str, shape: tuple[int, ...], out: int = 0) -> Shapes:
  """Returns a weight and its bias, of as many entries as axis `out`."""
  return {f"{name}.weight": shape, f"{name}.bias": (shape[out],)}


SHAPES = {"resnet_18": resnet_18, "vit_b_16": vit_b_16, "gpt_2": gpt_2}
"""Networks whose specs are found from their files."""


def mlp_spec(name: str) -> NetworkSpec:
  """Returns an MLP of `mlp_20m`: twenty layers of a thousand units."""
  return families.mlp((1000,) * (1 + int(name[len("mlp_") : -1])))


def shapes_of(name: str) -> Shapes:
  """Returns the tensors of a network, by name in its file."""
  if name in SHAPES:
    return SHAPES[name]()
  return {t.name: t.shape for t in mlp_spec(name).tensors}


def write(path: pathlib.Path, shapes: Shapes) -> None:
  """Writes a safetensors file of random weights."""
  rng = np.random.default_rng(0)
  tensors = {}
  for name, shape in shapes.items():
    drawn = rng.standard_normal(shape, np.float32)
    drawn *= np.float32(shape[-1] ** -0.5 if len(shape) > 1 else 0.1)
    if name.endswith("running_var"):
      drawn = np.abs(drawn) + np.float32(0.1)
    tensors[name] = drawn
  safetensors.numpy.save_file(tensors, path)


def network(name: str, path: pathlib.Path) -> tuple[NetworkSpec, Any]:
  """Returns the spec of a file, and its tensors by the spec's names."""
  if name not in SHAPES:
    return mlp_spec(name), checkpoints.read(path).entries
  opened = checkpoints.load(path)
  return opened.spec, opened.lazy(finite=False)


def encode(args: argparse.Namespace) -> dict:
  """Encodes one network in this process; returns its row of the table."""
  path = args.folder / f"{args.child}.safetensors"
  options = sne_options.SNEOptions(layer_function=args.layer_function)
  chunk_options = chunking.ChunkOptions(
    chunk_size=args.chunk_size, linear_rule=args.rule, conv_rule=args.rule
  )
  before = resident("VmRSS")
  measured = {"global_scale": 1.0, "place_scales": ()}
  encoder = table.build("sne", vars(options), vars(chunk_options), measured)
  params = init(encoder)
  start = time.perf_counter()
  spec, tensors = network(args.child, path)
  spec_seconds = time.perf_counter() - start
  encode_large = encoder.make_large_fn(args.memory_limit * 2**20)
  start, busy = time.perf_counter(), time.process_time()
  code = encode_large(params["params"], spec, tensors)
  seconds = time.perf_counter() - start
  busy = time.process_time() - busy
  return {
    "network": args.child,
    "parameters": spec.num_weights,
    "chunks": chunking.num_chunks(spec.layout, chunk_options),
    "spec_seconds": spec_seconds,
    "seconds": seconds,
    "core_seconds": busy,
    "parameters_per_second": spec.num_weights / seconds,
    "peak_mib": (resident("VmHWM") - before) / 2**20,
    "import_mib": before / 2**20,
    "code_norm": float(np.linalg.norm(code)),
  }


def init(encoder: interface.Encoder):
  """Draws parameters with a tiny network."""
  return jax.jit(
    lambda: program.init_params(
      encoder.module, encoder, families.mlp((2, 3, 2)), 0
    )
  )()


def resident(field: str) -> int:
  """Returns bytes of resident memory: `VmRSS` now, `VmHWM` at most."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(field):
      return 1024 * int(line.split()[1])
  raise ValueError(f"no {field} in /proc/self/status")


def fitted(rows: list[dict], field: str) -> dict:
  """Fits seconds by a constant and a slope in the number of parameters."""
  size = np.array([row["parameters"] for row in rows], float)
  seconds = np.array([row[field] for row in rows])
  slope, constant = np.polyfit(size, seconds, 1)
  error = seconds - (constant + slope * size)
  return {
    "constant_seconds": float(constant),
    "seconds_per_million": float(1e6 * slope),
    "r_squared": float(1 - error.var() / seconds.var()),
  }


def main() -> None:
  """Encodes each network in a process of its own; prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    "--networks",
    default="mlp_1m,mlp_3m,mlp_10m,mlp_30m,mlp_100m,resnet_18,vit_b_16,gpt_2",
    help=f"of {', '.join(SHAPES)} and mlp_Nm, by commas",
  )
  parser.add_argument(
    "--folder", type=pathlib.Path, required=True, help="for the files"
  )
  parser.add_argument("--out", type=pathlib.Path, help="JSON to write")
  parser.add_argument("--memory_limit", type=int, default=1024, help="MiB")
  parser.add_argument("--chunk_size", type=int, default=64)
  parser.add_argument("--rule", choices=("neuron", "flat"), default="neuron")
  parser.add_argument("--layer_function", default="isab")
  parser.add_argument("--child", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(encode(args)))
    return
  rows = []
  for name in args.networks.split(","):
    path = args.folder / f"{name}.safetensors"
    if not path.exists():
      write(path, shapes_of(name))
    again = [sys.executable, "-m", "benchmarks.large_networks", *sys.argv[1:]]
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(
      [*again, f"--child={name}"],
      stdout=subprocess.PIPE,
      check=True,
      text=True,
      cwd=root,
      env=os.environ | {"PYTHONPATH": str(root)},
    )
    row = json.loads(done.stdout)
    rows.append(row)
    print(
      f"{row['network']:10} {row['parameters'] / 1e6:7.1f} M weights,"
      f" {row['chunks']:8} chunks: {row['seconds']:7.1f} s"
      f" ({row['core_seconds']:.1f} of cores),"
      f" {row['parameters_per_second'] / 1e6:5.2f} M weights/s,"
      f" {row['peak_mib']:6.0f} MiB above {row['import_mib']:.0f}",
      flush=True,
    )
  report = results.head() | {"networks": rows}
  report |= {"options": {k: str(v) for k, v in vars(args).items()}}
  mlps = [row for row in rows if row["network"].startswith("mlp")]
  if len(mlps) > 2:
    for field in ("seconds", "core_seconds"):
      report[f"mlps, {field}"] = fitted(mlps, field)
      print(f"MLPs, {field}: {report[f'mlps, {field}']}")
  if args.out:
    results.write(args.out, report)


if __name__ == "__main__":
  main()
