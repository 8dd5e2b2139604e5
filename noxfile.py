"""Tests on other interpreters and versions: `pip install nox`, then `nox -l`.

`.ci/run` is the check of the pinned versions; these are beside it.
"""

import pathlib

import nox

nox.options.sessions = ["pinned"]
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12"])
def pinned(session):
  """The default tests at the versions of requirements-dev.txt."""
  session.install("-r", "requirements-dev.txt")
  session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def newest(session):
  """The default tests with the newest of all that pyproject.toml allows."""
  session.install("--upgrade", "-e", ".[dev,checkpoints]", "optuna>=5,<6")
  session.run("pip", "list", "--format=freeze")
  session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def wheel(session):
  """What users install: built, checked, and run without the clone."""
  session.env["PYTHONPATH"] = ""  # Else the clone may pass for the wheel.
  session.install("build", "twine")
  scratch = pathlib.Path(session.create_tmp())
  session.run("python", "-m", "build", "--outdir", str(scratch / "dist"))
  files = [str(path) for path in (scratch / "dist").iterdir()]
  session.run("twine", "check", "--strict", *files)
  session.install(*(path for path in files if path.endswith(".whl")))
  with session.chdir(scratch):
    session.run("sne-jax", "--help")
