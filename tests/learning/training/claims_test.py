"""Work directories belong to one configuration."""

import numpy as np
import pytest

from sne_jax.learning.training import claims

CONFIG = {"seed": 1, "model": {"dim": 8, "name": "sne"}, "progress": "bar"}


def test_a_work_directory_is_claimed_once(tmp_path):
  assert claims.claim_workdir(tmp_path / "new", CONFIG)
  assert not claims.claim_workdir(tmp_path / "new", CONFIG)
  assert '"dim": 8' in (tmp_path / "new" / "config.json").read_text()


def test_tuples_are_the_lists_that_they_are_saved_as(tmp_path):
  assert claims.claim_workdir(tmp_path, {"sizes": (1, 2)})
  assert not claims.claim_workdir(tmp_path, {"sizes": (1, 2)})


def test_another_configuration_is_refused_with_both_values(tmp_path):
  claims.claim_workdir(tmp_path, CONFIG)
  other = {"seed": 2, "model": {"dim": 8, "depth": 3}, "progress": "bar"}
  with pytest.raises(claims.WorkdirError) as caught:
    claims.claim_workdir(tmp_path, other)
  text = str(caught.value)
  assert "seed: 1 there, 2 now" in text
  assert "model.depth: absent there, 3 now" in text
  assert 'model.name: "sne" there, absent now' in text
  assert "another workdir" in text
  assert "model.dim" not in text and "progress" not in text


def test_ignored_entries_may_differ(tmp_path):
  claims.claim_workdir(tmp_path, CONFIG)
  changed = CONFIG | {"progress": "lines", "model": {"dim": 9}}
  ignore = ("progress", "model")
  assert not claims.claim_workdir(tmp_path, changed, ignore=ignore)
  with pytest.raises(claims.WorkdirError, match="seed"):
    claims.claim_workdir(tmp_path, changed | {"seed": 2}, ignore=ignore)
  # A name covers what is below it, not what begins like it.
  with pytest.raises(claims.WorkdirError, match="model.dim"):
    claims.claim_workdir(tmp_path, changed, ignore=("progress", "mod"))


def test_work_of_unknown_origin_is_refused(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(claims.WorkdirError, match="no config.json"):
    claims.claim_workdir(tmp_path, CONFIG)
  (tmp_path / "config.json").write_text('{"seed": ')
  with pytest.raises(claims.WorkdirError, match="cannot be read"):
    claims.claim_workdir(tmp_path, CONFIG)


def test_values_that_are_not_plain_are_refused(tmp_path):
  with pytest.raises(ValueError, match="plain values only"):
    claims.claim_workdir(tmp_path, {"seed": np.float32(1)})
