"""What a person settles: it is followed, asked for, or refused."""

import pytest

from sne_jax.networks import inference
from tests.networks.inference.plain_networks import groups_of, mlp


def test_skips_by_hand():
  names = ["a", "b", "c", "out"]
  shapes = mlp(3, 5, 7, 5, 2, names=names)
  plain = inference.infer(shapes, framework="torch")
  assert groups_of(plain, "c.weight")[0] == groups_of(plain, "a.weight")[0]
  assert any('{"skips": []}' in guess for guess in plain.guesses)
  assert set(plain.reasons) == {"a"}
  plain = inference.infer(shapes, framework="torch", override={"skips": []})
  assert not plain.guesses
  tied = inference.infer(
    shapes, framework="torch", override={"skips": [["a", "c"]]}
  )
  assert tied.spec.skips == ((0, 2),)
  assert groups_of(tied, "c.weight")[0] == groups_of(tied, "a.weight")[0]
  assert groups_of(plain, "c.weight")[0] != groups_of(plain, "a.weight")[0]
  assert not inference.infer(mlp(3, 5, 4, 2), framework="torch").guesses


@pytest.mark.parametrize(
  ("shapes", "said"),
  [
    ({"one.weight": (4, 4), "two.weight": (4, 4)}, "more than one order"),
    ({"a.weight": (4, 3), "b.weight": (6, 5)}, "in no order"),
    ({"a.weight": (4, 3), "a.spam": (2, 3, 4)}, "a.spam"),
    ({"layers.0.attn.weight": (4, 4)}, "not those of a plain network"),
    ({"lstm.weight_ih_l0": (16, 4), "out.weight": (2, 16)}, "recurrent cell"),
    ({"num_batches_tracked": ()}, "no weights"),
  ],
)
def test_what_is_ambiguous_says_what_to_write(shapes, said):
  with pytest.raises(inference.AmbiguousError, match=said) as error:
    inference.infer(shapes, framework="safetensors")
  assert "\n" not in str(error.value)
  assert '{"' in str(error.value) or said == "no weights"


def test_order_by_hand():
  shapes = {"one.weight": (4, 4), "two.weight": (4, 4), "out.weight": (2, 4)}
  found = inference.infer(
    shapes,
    framework="safetensors",
    override={"order": ["two", "one", "out"], "skips": []},
  )
  assert [t.name for t in found.spec.tensors][0] == "two.weight"
  assert groups_of(found, "one.weight")[1] == ["two"]
  with pytest.raises(ValueError, match="order must hold one, two, out"):
    inference.infer(shapes, framework="torch", override={"order": ["two"]})


@pytest.mark.parametrize(
  "override",
  [
    {"head": 3},
    {"heads": "3"},
    {"heads": True},
    {"flatten": "rows"},
    {"skips": [["a"]]},
    {"skips": [["a", "z"]]},
    {"leave_out": ["z"]},
    {"options": {"a": 1}},
    {"family": "unheard", "options": {}},
  ],
)
def test_bad_overrides_are_refused(override):
  with pytest.raises(ValueError, match="override|family|known"):
    inference.infer(
      mlp(2, 3, 2, names=["a", "b"]), framework="torch", override=override
    )


def test_unknown_frameworks_are_refused():
  with pytest.raises(ValueError, match="known are safetensors"):
    inference.infer(mlp(2, 3, 1), framework="pickle")
