"""What a program of ours says to its terminal, and how it compiles."""

import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache

import experiments
from sne_jax.cli import console


def setup() -> None:
  """Keeps log lines to those of this project, and to warnings of others."""
  console.setup(tuple(experiments.__path__))


def use_compilation_cache(folder: str) -> None:
  """Keeps compiled programs in a folder; empty: changes nothing."""
  if not folder:
    return
  path = pathlib.Path(folder).absolute()
  path.mkdir(parents=True, exist_ok=True)
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  compilation_cache.reset_cache()  # JAX looks at the folder only once.
