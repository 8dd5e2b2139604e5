"""Pages for the browser, each one file that fetches nothing.

Dimensions: `N` networks.
"""

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from sne_jax import atomic
from sne_jax.cli import given_files
from sne_jax.cli.atlas import content, layouts, packing
from sne_jax.cli.reports import network_rows

SCRIPTS = ("data.js", "map.js", "network.js", "table.js", "start.js")
"""One module: each uses what stands in those before it."""

MISSING = 65535
"""Stands for a word that is unknown."""

WORDS = 64
"""A column of more words than this colours no map."""

WEIGHTS_BYTES = 12_000_000
"""Histograms of all networks, at most, before they are compressed."""

FEWEST_ROWS = 4


class Map(NamedTuple):
  """A map in a page.

  Attributes:
    markup: where it stands.
    scripts: what follows at the end of the page.
  """

  markup: str
  scripts: str


def write(
  path: pathlib.Path,
  atlas: content.Atlas,
  *,
  names: Sequence[str] = (layouts.PCA,),
  seed: int = 0,
) -> pathlib.Path:
  """Writes an atlas.

  Args:
    path: of the page.
    atlas: what it shows.
    names: of the layouts, see `layouts.TITLES`.
    seed: see `layouts.laid_out`.
  """
  drawn = map_of(atlas, names=names, seed=seed)
  said = " ".join(atlas.said)
  body = [f"<p>{html.escape(said)}</p>" if said else "", drawn.markup]
  body += _probes(atlas.probes)
  return atomic.write_atomically(
    path, document(atlas.title, "\n".join(body), drawn.scripts)
  )


def document(
  title: str, body: str, scripts: str = "", *, kind: str = "wide"
) -> str:
  """Returns a page with a title, and a button for light and dark.

  Args:
    title: text.
    body: markup.
    scripts: what follows the body.
    kind: "wide" or "text".
  """
  title = html.escape(title)
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{_static("style.css")}</style>
<script>
{_static("theme.js")}</script>
</head>
<body>
<header class="{kind}"><h1>{title}</h1><button id="theme" type="button" \
aria-label="light or dark">◐</button></header>
<main class="{kind}">
{body}
</main>
{scripts}</body>
</html>
"""


def map_of(
  atlas: content.Atlas,
  *,
  names: Sequence[str] = (layouts.PCA,),
  seed: int = 0,
) -> Map:
  """Returns the map of an atlas, to stand in a page; once in each."""
  scaled = layouts.standardised(atlas.codes)
  header, arrays = described(atlas)
  maps = layouts.laid_out(scaled, names, seed=seed)
  near, far = layouts.nearest(scaled)
  header |= {"layouts": list(maps), "neighbours": near.shape[1]}
  arrays |= {f"layout/{n}": places for n, places in enumerate(maps.values())}
  arrays |= {"near": near, "far": far.astype(np.float32)}
  code = "".join(map(_static, SCRIPTS))
  scripts = "".join(
    f'<script type="text/plain" id="{name}">{block}</script>\n'
    for name, block in (
      ("data", packing.packed(header, arrays)),
      ("plotly", packing.plotly()),
    )
  )
  scripts += f'<script type="module">\n{code}</script>\n'
  return Map(_static("map.html"), scripts)


def described(
  atlas: content.Atlas,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns what the script knows of networks: a header, and arrays."""
  header: dict[str, Any] = {
    "count": len(atlas.codes),
    "codeName": atlas.code_name,
    "names": [given_files.shown(str(name)) for name in atlas.names],
    "columns": [],
    "specs": [],
  }
  arrays: dict[str, np.ndarray] = {}
  for place, (name, column) in enumerate(atlas.columns.items()):
    about, more = _column(name, column)
    header["columns"].append(about)
    arrays |= {f"{what}/{place}": values for what, values in more.items()}
  arrays["spec"] = np.asarray(atlas.numbers, np.int32)
  arrays["row"] = np.zeros(len(atlas.codes), np.int32)
  bytes_each = WEIGHTS_BYTES // len(atlas.codes)
  most = bytes_each // (network_rows.BINS + 16)
  most = int(np.clip(most, FEWEST_ROWS, network_rows.MOST))
  for number, spec in enumerate(atlas.specs):
    mine = np.flatnonzero(arrays["spec"] == number)
    rows = network_rows.rows_of(spec, most) if mine.size else ()
    header["specs"].append(
      {
        "architecture": given_files.architecture(spec),
        "parameters": spec.num_parameters,
        "skips": [list(pair) for pair in spec.skips],
        "rows": [
          row._asdict() | {"activation": network_rows.activation(spec, row)}
          for row in rows
        ],
      }
    )
    if mine.size:
      arrays["row"][mine] = np.arange(mine.size)
      vectors = [atlas.vectors[n] for n in mine.tolist()]
      weights = network_rows.weights_of(spec, rows, vectors)
      arrays[f"ranges/{number}"] = weights.ranges
      arrays[f"counts/{number}"] = weights.counts
  return header, arrays


def _column(
  name: str, column: content.Column
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns what the script knows of a column, and its arrays."""
  values = np.asarray(column.values)
  is_said = name.startswith("predicted") or name == content.NOVELTY
  about: dict[str, Any] = {"name": name, "about": column.about, "words": None}
  about |= {"inTip": is_said, "inTable": is_said or name == content.PART}
  about |= {"interval": column.low is not None, "colours": True}
  if values.dtype.kind in "fiu":
    arrays = {"column": values.astype(np.float32)}
    if column.low is not None and column.high is not None:
      arrays |= {"low": np.asarray(column.low, np.float32)}
      arrays |= {"high": np.asarray(column.high, np.float32)}
    return about, arrays
  if values.dtype.kind == "b":
    values = np.where(values, "yes", "no")
  values = values.astype(str)
  words, places, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  order = np.argsort(-counts, kind="stable")
  rank = np.empty(len(words), np.int64)
  rank[order] = np.arange(len(words))
  ranks = rank[places.reshape(-1)]
  ranks = np.where((values == "") | (ranks >= MISSING), MISSING, ranks)
  about["words"] = [given_files.shown(str(words[n])) for n in order[:MISSING]]
  about["colours"] = 1 < len(words) <= WORDS
  return about, {"column": ranks.astype(np.uint16)}


def _probes(probes: Mapping[str, bytes]) -> list[str]:
  if not probes:
    return []
  figures = [
    f"<figure>{inlined(png, caption)}<figcaption>{html.escape(caption)}"
    "</figcaption></figure>"
    for caption, png in probes.items()
  ]
  lead = "<h2>Inputs that networks are run on, as learned</h2>"
  return [lead, f'<div class="probes">{"".join(figures)}</div>']


def inlined(png: bytes, caption: str) -> str:
  """Returns a picture as markup that holds it."""
  data = base64.b64encode(png).decode()
  alt = html.escape(caption, quote=True)
  return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def _static(name: str) -> str:
  folder = resources.files("sne_jax.cli.atlas")
  return (folder / "static" / name).read_text(encoding="utf-8")
