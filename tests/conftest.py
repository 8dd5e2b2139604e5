"""Settings that every test runs under: strict where a slip would hide.

They are set before any test module is imported, so before JAX has devices.
"""

import contextlib
import mmap
import os
import pathlib

import hypothesis
import jax
import jaxlib
import matplotlib
import pytest
from absl import flags

# JAX_PLATFORMS=cuda tests on a GPU; the tolerances are those of a CPU.
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)  # A key used twice raises.
jax.config.update("jax_num_cpu_devices", 2)  # So that sharding is tested.

# Most of a test's time is compilation: half as long without optimisation. In
# the environment too, so that processes that a test starts give the same bits.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
jax.config.update("jax_disable_most_optimizations", True)

# And a third as long with the older of XLA's two ways of writing fused loops.
# Unknown flags end a process, so it is asked for only where jaxlib knows it.
FLAG = "xla_cpu_use_fusion_emitters"


def _knows(flag: str) -> bool:
  """Returns whether the compiler's library has a flag."""
  for path in pathlib.Path(jaxlib.__file__).parent.glob("libjax_common*"):
    with path.open("rb") as file:
      whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
      with contextlib.closing(whole):
        if whole.find(flag.encode()) >= 0:
          return True
  return False


if FLAG not in os.environ.get("XLA_FLAGS", "") and _knows(FLAG):
  given = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = f"{given} --{FLAG}=false".strip()

os.environ["SNE_JAX_CACHE"] = "none"  # Nothing in the user's own folders.
matplotlib.use("Agg")  # Figures are drawn without a screen.

# Tracing makes a first example slow, and a test must not depend on luck.
hypothesis.settings.register_profile("sne_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("sne_jax")

if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Nobody parses flags under pytest.


def pytest_addoption(parser):
  """Adds the flag that rewrites `tests/fixtures/golden_codes.json`."""
  parser.addoption(
    "--update-golden",
    action="store_true",
    help="rewrite the golden codes of encoders by today's code. Codes of"
    " models that were saved before move with them: CHANGELOG.md needs a line"
    " that says which, and why.",
  )


@pytest.fixture
def strict_dtypes():
  """No implicit promotion between dtypes inside this test.

  For single tests: set for all, it would break inside optimisers of optax.
  """
  with jax.numpy_dtype_promotion("strict"):
    yield
