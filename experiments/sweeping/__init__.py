"""What `experiments/sweep.py` is made of, one idea per file."""

import importlib.util

if importlib.util.find_spec("optuna") is None:
  raise SystemExit(
    "error: a sweep needs Optuna, which is not installed: pip install -e"
    " '.[sweep]', or, with --address=none, pip install optuna"
  )
