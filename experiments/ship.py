"""Makes a model that ships with the library: trains, then exports it.

  python experiments/ship.py sine-frequency

runs experiments/flags/shipped/NAME.flags, or takes the run that is there, and
replaces sne_jax/sharing/models/NAME by what it has trained; the facts of its
card are in NAME.json beside the flagfile. Flags behind the name are those of
experiments/run.py: classifier-accuracy needs --data_dir, the folder of
mnist.npz.
"""

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

from sne_jax.cli import config
from sne_jax.cli.commands import models
from sne_jax.sharing import names

HERE = pathlib.Path(__file__).parent
RECIPES = HERE / "flags" / "shipped"
MOST_BYTES = 2_000_000
"""Of all files of a model that ships."""


def recipes() -> tuple[str, ...]:
  """Returns the names of the models that ship."""
  return tuple(sorted(path.stem for path in RECIPES.glob("*.flags")))


def facts_of(name: str) -> dict[str, str]:
  """Returns what the card of a model says beside its figures."""
  facts = json.loads((RECIPES / f"{name}.json").read_text())
  made_by = f"python experiments/ship.py {name}"
  return {"name": name, "made_by": made_by, "licence": "Apache-2.0"} | facts


def export(name: str, run: pathlib.Path, home: pathlib.Path) -> pathlib.Path:
  """Replaces a model that ships by that of a run.

  Args:
    name: of the model.
    run: folder of the run.
    home: folder of the models.

  Returns:
    The folder of the model.

  Raises:
    ValueError: the model is too large to ship; the one that is there stays.
  """
  new = home / f".{name}.new"
  shutil.rmtree(new, ignore_errors=True)
  try:
    models.export(str(run), new, facts_of(name))
    size = sum(path.stat().st_size for path in new.iterdir())
    if size > MOST_BYTES:
      raise ValueError(
        f"{name} takes {size:,} bytes, and may take {MOST_BYTES:,}; make the"
        " model smaller"
      )
    shutil.rmtree(home / name, ignore_errors=True)
    new.replace(home / name)
  finally:
    shutil.rmtree(new, ignore_errors=True)
  return home / name


def main(argv: Sequence[str]) -> None:
  """Trains and exports the model that the first word names."""
  if not argv or argv[0] not in recipes():
    word = argv[0] if argv else ""
    config.leave(
      f"there is no model {word!r} to make; name one of {', '.join(recipes())}"
    )
  name, *flags = argv
  flagfile = RECIPES / f"{name}.flags"
  command = [sys.executable, str(HERE / "run.py"), f"--flagfile={flagfile}"]
  done = subprocess.run([*command, *flags], check=False)
  if done.returncode:
    sys.exit(done.returncode)
  print(export(name, pathlib.Path("runs/shipped") / name, names.HOME))


if __name__ == "__main__":
  main(sys.argv[1:])
