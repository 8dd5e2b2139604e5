"""Finds the spec of a network from what its file says of it.

First a person's word (`override.py`), then the file's own graph, then the
names and shapes of its tensors: known conventions (`conventions.py`), then
plain networks (`plain/`). What is none of these gives `AmbiguousError`, with
what to write down.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sne_jax.networks import augment, families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.inference import conventions, naming, refusals
from sne_jax.networks.inference import sources as sources_lib
from sne_jax.networks.inference.assembly import assemble
from sne_jax.networks.inference.inferred import AmbiguousError, InferredNetwork
from sne_jax.networks.inference.override import Override, as_override
from sne_jax.networks.inference.plain import chain, readings
from sne_jax.networks.inference.sources import Source
from sne_jax.networks.tracing import activations
from sne_jax.networks.tracing.player import Graph, Mismatch, Player

FRAMEWORKS = (
  *("safetensors", "torch", "flax", "orbax", "keras", "onnx", "npz", "gguf"),
)
"""Kinds of files; they say how kernels are stored and in what order."""


@runtime_checkable
class Tensors(Protocol):
  """A file of tensors, as readers give them."""

  @property
  def entries(self) -> Mapping[str, Any]:
    """By name, in the order of the file.

    Each has `shape`, `dtype`, `tied_to` (a name, or None) and `read()`.
    """
    ...

  @property
  def format(self) -> str:
    """One of `FRAMEWORKS`."""
    ...


def infer_file(
  tensors: Tensors, override: Override | Mapping[str, Any] | None = None
) -> InferredNetwork:
  """Finds the spec of a file of tensors; see `infer`."""
  entries = tensors.entries
  override = as_override(override)
  graph = getattr(tensors, "graph", None)
  if not override.activation and graph is None:
    metadata = getattr(tensors, "metadata", {})
    name = activations.stated(tensors.format, metadata)
    override = dataclasses.replace(override, activation=name)
  return infer(
    {name: tuple(entry.shape) for name, entry in entries.items()},
    framework=tensors.format,
    override=override,
    dtypes={name: str(entry.dtype) for name, entry in entries.items()},
    tied={n: e.tied_to for n, e in entries.items() if e.tied_to},
    read=lambda name: sources_lib.read(entries, name),
    graph=graph,
  )


def infer(
  shapes: Mapping[str, tuple[int, ...]],
  *,
  framework: str,
  override: Override | Mapping[str, Any] | None = None,
  dtypes: Mapping[str, str] | None = None,
  tied: Mapping[str, str] | None = None,
  graph: Graph | None = None,
  read: Callable[[str], np.ndarray] | None = None,
) -> InferredNetwork:
  """Finds the spec of a network.

  Args:
    shapes: of its tensors, by name, in the order of the file.
    framework: one of `FRAMEWORKS`.
    override: what a person settles; see `override.py`.
    dtypes: of the tensors, where known: integers are no weights.
    tied: names that share another tensor's numbers, and that name.
    graph: what the file says of how the network is computed, if anything.
    read: returns a tensor's numbers, to see which are copies of another.

  Raises:
    AmbiguousError: names and shapes do not settle it; the message shows the
      override that does.
    ValueError: unknown framework, or an override that does not fit.
  """
  if framework not in FRAMEWORKS:
    raise ValueError(
      f"unknown framework {framework!r}; known are {', '.join(FRAMEWORKS)}"
    )
  settled = as_override(override)
  tied = {
    name: other for name, other in (tied or {}).items() if other in shapes
  }
  left_out = naming.left_out(shapes, dtypes)
  left_out |= dict.fromkeys(
    settled.names_left_out(shapes), "left out by the override"
  )
  left_out |= _second_names(tied, left_out)
  kept = {n: tuple(s) for n, s in shapes.items() if n not in left_out}
  if not kept:
    kept_out = ", ".join(f"{n}: {why}" for n, why in [*left_out.items()][:2])
    raise AmbiguousError(
      "the file holds no weights" + (f" ({kept_out})" if kept_out else ""),
      "name a file that does, real numbers of one axis or more",
    )
  tied = {name: other for name, other in tied.items() if name in kept}
  player = Player(kept, framework, settled, tied)
  player.read = read
  found = _opaque(player) if settled.opaque else _found(player, graph, left_out)
  if settled.family:
    spec, sources = _as_family(found.spec, found.sources, settled)
    found = dataclasses.replace(found, spec=spec, sources=sources)
  left_out |= found.left_out
  left_out |= _second_names(found.tied, left_out)
  tied = {n: other for n, other in found.tied.items() if n not in left_out}
  return dataclasses.replace(found, left_out=left_out, tied=tied)


def _second_names(
  tied: Mapping[str, str], left_out: Mapping[str, str]
) -> dict[str, str]:
  """Names of tensors that are left out under another, and that name."""
  return {n: f"is {o}" for n, o in tied.items() if o in left_out}


def _found(
  player: Player, graph: Graph | None, left_out: Mapping[str, str]
) -> InferredNetwork:
  """Plays what the file says of itself, else what its names say."""
  if graph is None or player.override.describes:
    return _named(player, left_out)
  try:
    graph.play(player)
  except Mismatch as error:
    raise AmbiguousError(
      f"the graph in the file cannot be played: {error}; {chain.OPAQUE}"
    ) from error
  found = _assembled(player, "traced")
  spec = augment.assumed(found.spec, player.override.activation)
  left_out = {**found.left_out} | {
    name: "a constant, which is no weight"
    if name in player.constants
    else "has no part in the output of the graph in the file"
    for name in player.rest()
  }
  return dataclasses.replace(found, spec=spec, left_out=left_out)


def _named(given: Player, left_out: Mapping[str, str]) -> InferredNetwork:
  """Tries the conventions, then a plain network."""
  shapes, settled = given.everything, given.override

  def is_read(names: Collection[str], override: Override) -> bool:
    some = {n: s for n, s in shapes.items() if n in names}
    tied = {n: o for n, o in given.tied.items() if {n, o} <= some.keys()}
    out = {n: why for n, why in left_out.items() if n in names}
    try:
      _named(Player(some, given.framework, override, tied), out)
    except ValueError:
      return False
    return bool(some)

  seen = shapes, left_out, given.tied, settled, is_read
  refusals.check(*seen, certain=True)
  refused = []
  for name, play in conventions.CONVENTIONS.items():
    player = Player(shapes, given.framework, settled, given.tied)
    try:
      options = play(player)
    except Mismatch as error:
      if player.played:
        refused.append(f"it is not {name}: {error}")
      continue
    rest = player.rest()
    if not rest:
      return _run_by_family(_assembled(player, "named"), options)
    refused.append(
      f"it is not quite {name}: what do {', '.join(rest[:4])}"
      f"{', ...' if len(rest) > 4 else ''} do? If they are no weights, write"
      f" {readings.as_json(leave_out=[*settled.leave_out, *rest])}"
    )
  if refused and not settled.order:  # A network of this kind is not plain.
    raise AmbiguousError(f"{'; '.join(refused)}; {chain.OPAQUE}")
  refusals.check(*seen, certain=False)
  try:
    chain.play(given)
  except Mismatch as error:
    raise AmbiguousError(f"{error}; {chain.OPAQUE}") from error
  if given.rest():
    raise AmbiguousError(
      f"no part for {', '.join(given.rest())}; {chain.OPAQUE}"
    )
  return _assembled(given, "guessed")


def _run_by_family(
  inferred: InferredNetwork, options: Mapping[str, Any] | None
) -> InferredNetwork:
  """Lets our transformer run a network if it has just these tensors."""
  if options is None:
    return inferred
  settled = Override(family="transformer", options=options)
  try:
    spec, sources = _as_family(inferred.spec, inferred.sources, settled)
  except ValueError:  # Of images that are not square, for example.
    return inferred
  return dataclasses.replace(inferred, spec=spec, sources=sources)


def _assembled(player: Player, how: str) -> InferredNetwork:
  """Returns what was played."""
  spec, sources = assemble(player.tape)
  guesses = (*player.guesses, *player.tape.unclaimed())
  reasons = {}
  for tensor, source in zip(spec.tensors, sources, strict=True):
    if source.name in player.reasons:
      groups = [f.group for axis in tensor.axes[:1] for f in axis if f.group]
      reasons |= dict.fromkeys(groups, player.reasons[source.name])
  return InferredNetwork(
    spec,
    sources,
    dict(player.left_out),
    dict(player.tied),
    guesses,
    how,
    reasons,
  )


def _opaque(player: Player) -> InferredNetwork:
  """A spec that claims nothing: levels by order, no permutation."""
  shapes = player.shapes
  tensors, sources, level = [], [], -1
  for name, shape in shapes.items():
    _, part = naming.role(name)
    level += len(shape) > 1 or level < 0
    kind = "other"
    if part == "weight" and len(shape) > 1:
      kind = "linear_weight" if len(shape) == 2 else "conv_weight"
    shape = shape or (1,)
    axes = tuple(spec_lib.plain_axis(n) for n in shape)
    tensors.append(spec_lib.TensorSpec(name, kind, shape, level, axes))
    stored = shapes[name]
    order = tuple(range(len(stored)))
    sources.append(Source(name, name, stored, stored, (), order, shape))
  spec = spec_lib.NetworkSpec("unknown", tuple(tensors))
  note = "opaque, as the override says: levels by order, no permutation"
  return InferredNetwork(spec, tuple(sources), {}, dict(player.tied), (note,))


def _as_family(
  spec: spec_lib.NetworkSpec, sources: tuple[Source, ...], settled: Override
):
  """Returns the spec of a family that can run it, tensor by tensor.

  Raises:
    ValueError: the family's tensors are others.
  """
  options = {
    k: tuple(v) if isinstance(v, list) else v
    for k, v in settled.options.items()
  }
  built = families.build(settled.family, **options)
  pairs = itertools.zip_longest(spec.tensors, built.tensors)
  for mine, theirs in pairs:
    of = lambda t: "nothing" if t is None else f"{t.name} {t.kind} {t.shape}"
    looks = lambda t: None if t is None else (t.kind, t.shape)
    if looks(mine) != looks(theirs):
      raise ValueError(
        f"override: family {settled.family!r} with these options has"
        f" {of(theirs)} where the file has {of(mine)}"
      )
  renamed = tuple(
    dataclasses.replace(source, tensor=t.name)
    for source, t in zip(sources, built.tensors, strict=True)
  )
  return built, renamed
