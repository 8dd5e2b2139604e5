"""Reads parameters of the Set Transformer authors' PyTorch code.

Their names, and ours:

  fc_q, fc_k, fc_v  .weight [out, in]  query, key, value `_kernel` [in, out]
                    .bias              query, key, value `_bias`
  fc_o              .weight, .bias     feed_forward.kernel, .bias
  ln0, ln1          .weight, .bias     norm_0, norm_1: scale, bias
  mab.              (SAB, PMA)         mab
  mab0., mab1.      (ISAB)             mab_0, mab_1
  I [1, K, W]       (ISAB)             inducing [K, W]
  S [1, K, W]       (PMA)              seeds [K, W]
  0., 1., 2.        (a sequence)       0, 1, 2
"""

from collections.abc import Mapping

import numpy as np

_MODULES = {"mab0": "mab_0", "mab1": "mab_1", "ln0": "norm_0", "ln1": "norm_1"}
_PROJECTIONS = {"fc_q": "query", "fc_k": "key", "fc_v": "value"}
_POINTS = {"I": "inducing", "S": "seeds"}


def params_from_torch(state: Mapping[str, np.ndarray]) -> dict:
  """Turns a state of the authors' modules into params of ours.

  Args:
    state: arrays by their official names, as in the table above.

  Returns:
    Nested params for `SetOptions(form="coded")` with norm `post` (their
    `ln=True`) or `none`.

  Raises:
    ValueError: a name is not of the table.
  """
  params = {}
  for name, array in state.items():
    *path, leaf = name.split(".")
    array = np.asarray(array)
    inner = path[-1] if path else None
    if leaf in _POINTS:
      leaf, array = _POINTS[leaf], array[0]
    elif leaf not in ("weight", "bias") or inner is None:
      raise ValueError(
        f"{name!r} is no parameter of MAB, SAB, ISAB or PMA; known endings are"
        " weight, bias, I, S"
      )
    elif inner in _PROJECTIONS:
      path = path[:-1]
      kind = "kernel" if leaf == "weight" else "bias"
      leaf, array = f"{_PROJECTIONS[inner]}_{kind}", array.T
    elif inner == "fc_o":
      path[-1] = "feed_forward"
      leaf, array = "kernel" if leaf == "weight" else "bias", array.T
    elif inner in ("ln0", "ln1"):
      leaf = "scale" if leaf == "weight" else "bias"
    else:
      raise ValueError(
        f"{name!r} is no parameter of MAB, SAB, ISAB or PMA; known modules are"
        " fc_q, fc_k, fc_v, fc_o, ln0, ln1"
      )
    place = params
    for module in path:
      place = place.setdefault(_MODULES.get(module, module), {})
    place[leaf] = array
  return params
