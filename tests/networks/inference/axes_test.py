"""The algebra of axes, and the tape, on cases worked out by hand."""

import pytest

from sne_jax.networks.inference import assembly
from sne_jax.networks.inference.axes import Axes
from sne_jax.networks.tracing import operations
from sne_jax.networks.tracing.tape import Tape


def test_unify_refines_both_sides():
  axes = Axes()
  one, other = axes.fresh(12), axes.fresh(3) + axes.fresh(4)
  axes.unify(one, other)
  assert axes.leaves(one) == axes.leaves(other)
  assert axes.size(one) == 12
  third = axes.fresh(6) + axes.fresh(2)
  axes.unify(one, third)
  assert [axes.size((n,)) for n in axes.leaves(one)] == [3, 2, 2]
  assert axes.leaves(third) == axes.leaves(other)
  assert axes.is_free(one)


def test_axes_that_do_not_nest_are_pinned():
  axes = Axes()
  one, other = axes.fresh(4) + axes.fresh(3), axes.fresh(3) + axes.fresh(4)
  axes.unify(one, other, "told")
  assert not axes.is_free(one) and not axes.is_free(other)
  assert list(axes.reasons) == ["told"]


def test_a_pin_spreads():
  axes = Axes()
  one, other = axes.fresh(6), axes.fresh(6)
  axes.unify(one, other)
  heads, units = axes.regroup([one], (2, 3))
  axes.pin(units)
  assert not axes.is_free(axes.leaves(other)[1:])
  assert axes.is_free(heads)


def test_regroup_merges_and_splits():
  axes = Axes()
  a, b = axes.fresh(4), axes.fresh(6)
  merged = axes.regroup([a, b], (24,))
  assert axes.leaves(merged[0]) == (*a, *b)
  back = axes.regroup(merged, (4, 1, 6))
  assert back == (a, (), b)
  bad = axes.regroup([a, b], (3, 8))
  assert not axes.is_free(a) and not axes.is_free(bad[0])


@pytest.mark.parametrize("reduced", [None, "heads", "units"])
def test_nested_only_if_never_apart(reduced):
  """Units may differ by head unless some value has them without heads."""
  axes = Axes()
  whole = axes.fresh(6)
  axes.see([whole])
  heads, units = axes.regroup([whole], (2, 3))
  axes.see([heads, units])
  if reduced:
    axes.see([units if reduced == "heads" else heads])
  axes.finish()
  nested = heads[0] in axes.outer(units[0])
  assert nested == (reduced != "heads")


def play(mix):
  """Two layers with `[2, 3]` hidden values, which `mix` combines."""
  tape = Tape()
  x = tape.input((5, 4))
  first = tape.weight("first", (6, 4))
  h = tape.contract(x, first, (), [(1, 1)])
  h = mix(tape, tape.reshape(h, (5, 2, 3)))
  h = tape.reshape(h, (5, -(-h.shape[1] * h.shape[2])))
  last = tape.weight("last", (2, h.shape[1]))
  tape.output(tape.contract(h, last, (), [(1, 1)]))
  return assembly.assemble(tape)[0]


def factors(spec, name, axis):
  return [
    (f.size, f.group is not None, f.per is not None)
    for f in spec.tensor(name).axes[axis]
  ]


def test_shuffled_channels_are_followed():
  spec = play(lambda tape, h: tape.transpose(h, (0, 2, 1)))
  rows, columns = spec.tensor("first").axes[0], spec.tensor("last").axes[1]
  assert [f.group for f in rows] == [f.group for f in columns][::-1]


def test_a_part_without_a_reader_of_its_own():
  spec = play(lambda tape, h: tape.elementwise(h))
  assert factors(spec, "first", 0) == [(2, True, False), (3, True, True)]


def test_an_unknown_operation_claims_nothing():
  spec = play(lambda tape, h: tape.unknown([h], [h.shape], "spam")[0])
  assert not spec.groups


def test_blocks_of_unlike_sizes_claim_nothing():
  def mix(tape, h):
    return tape.concatenate([h, tape.input((5, 2, 1))], 2)

  assert not play(mix).groups


def test_blocks_of_one_size_are_parts_of_what_reads_them():
  spec = play(lambda tape, h: tape.concatenate([h, h], 2))
  assert factors(spec, "first", 0) == [(2, True, False), (3, True, True)]
  rows = spec.tensor("first").axes[0]
  assert [spec.tensor(f"last[{i}]").axes[1] for i in range(2)] == [rows] * 2


def test_blocks_that_are_added_in_another_order_are_one_group():
  """Also after the weight that reads them has taken over their nodes."""
  axes = Axes()
  one, other = axes.fresh(6), axes.fresh(6)
  joined, turned = axes.join([one, other]), axes.join([other, one])
  axes.unify(joined, turned)
  axes.unify(joined, axes.fresh(12))
  axes.finish()
  assert axes.leaves(one) == axes.leaves(other) and axes.is_free(one)


def test_parts_of_blocks_are_not_cut_again():
  axes = Axes()
  joined = axes.join([axes.fresh(8), axes.fresh(8)])
  blocks, units = axes.regroup([joined[1:], joined[:1]], (2, 8))
  left = axes.pick([blocks, units], 0, 1, "told")
  assert not axes.is_free(blocks) and left == (units,)


def test_fused_parts_become_tensors():
  """Two of three parts are multiplied: they share a group, the third not."""
  tape = Tape()
  x = tape.input((5, 4))
  fused = tape.weight("fused", (9, 4))
  h = tape.contract(x, fused, (), [(1, 1)])
  a, b, c = (tape.slice(h, 1, 3 * i, 3 * i + 3) for i in range(3))
  out, other = tape.weight("out", (2, 3)), tape.weight("other", (2, 3))
  y = tape.contract(tape.elementwise(a, b), out, (), [(1, 1)])
  z = tape.contract(c, other, (), [(1, 1)])
  tape.output(tape.elementwise(y, z, op="add"))
  spec, sources = assembly.assemble(tape)
  rows = [spec.tensor(f"fused[{i}]").axes[0] for i in range(3)]
  assert rows[0] == rows[1] != rows[2]
  assert rows[0] == spec.tensor("out").axes[1]
  assert rows[2] == spec.tensor("other").axes[1]
  assert [s.describe() for s in sources[:2]] == [
    "reshape [3, 3, 4], place 0 of axis 0",
    "reshape [3, 3, 4], place 1 of axis 0",
  ]
  assert sum(s.shape == (3, 4) for s in sources) == 3


def test_a_weight_used_again_ties_its_axes():
  tape = Tape()
  x = tape.contract(tape.input((5, 4)), tape.weight("in", (6, 4)), (), [(1, 1)])
  for _ in range(2):
    again = tape.weight("again", (6, 6))
    x = tape.elementwise(tape.contract(x, again, (), [(1, 1)]))
  tape.output(tape.contract(x, tape.weight("out", (2, 6)), (), [(1, 1)]))
  spec, _ = assembly.assemble(tape)
  assert len(spec.groups) == 1
  assert spec.tensor("again").axes[0] == spec.tensor("again").axes[1]


def test_a_batch_norm_that_is_not_alone_cannot_be_folded():
  def network(shared):
    tape = Tape()
    x = tape.input((1, 3, 1, 1))
    y = operations.convolution(tape, x, tape.weight("c", (4, 3, 1, 1)), (1, 1))
    names = {"norm_mean": "mean", "norm_var": "var"}
    vectors = {k: tape.weight(v, (4,)) for k, v in names.items()}
    z = operations.batch_norm(tape, y, vectors)
    if shared:
      z = tape.elementwise(z, y, op="add")
    tape.output(tape.reduce(z, (1,)))
    return assembly.assemble(tape)[0]

  assert network(False).tensor("mean").of == "c"
  assert network(True).tensor("mean").of is None


def test_nothing_played_is_an_error():
  with pytest.raises(ValueError, match="no weight"):
    assembly.assemble(Tape())


@pytest.mark.parametrize("scaled", [True, False])
def test_what_acts_on_all_fused_parts_ties_them(scaled):
  tape = Tape()
  x = tape.input((5, 4))
  h = tape.contract(x, tape.weight("fused", (9, 4)), (), [(1, 1)])
  h = tape.reshape(h, (5, 3, 3))
  if scaled:
    h = tape.elementwise(h, tape.weight("scale", (3,)), op="scale")
  for i in range(3):
    out = tape.weight(f"out{i}", (2, 3))
    tape.output(tape.contract(tape.select(h, 1, i), out, (), [(1, 1)]))
  spec, _ = assembly.assemble(tape)
  rows = {spec.tensor(f"fused[{i}]").axes[0] for i in range(3)}
  assert len(rows) == len(spec.groups) == (1 if scaled else 3)
  if scaled:
    assert {spec.tensor("scale").axes[0]} == rows
