"""The documentation site: `sphinx-build -W docs build/site`.

Sphinx reads docstrings, and MyST Markdown, so that pages read well on a code
host too; MyST-NB shows notebooks with the outputs that are in them. All are
what JAX and Flax document themselves with. Furo is a quiet
theme that works on a phone, offline, in light and dark.
"""

import sne_jax

project = "sne_jax"
author = "the sne_jax maintainers"
copyright = "the sne_jax maintainers; Apache-2.0"  # noqa: A001
version = release = sne_jax.__version__

extensions = [
  "myst_nb",  # And with it `myst_parser`.
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # A slow test executes them (tests/gallery_test.py).
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

default_role = "code"  # What docstrings have in backticks.
autodoc_mock_imports = ["torch"]  # Optional, and large.
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # Docstrings say what is meant, with shapes.
napoleon_google_docstring = True

highlight_language = "none"  # Fences without a language are no Python.

html_theme = "furo"
html_title = "sne_jax"
html_show_sourcelink = False
