"""`report.html`: a report as one file, with its pictures and its map in it."""

import html
import pathlib
import re
from collections.abc import Sequence

import markdown_it
from markdown_it import token as token_lib

from sne_jax import atomic
from sne_jax.cli.atlas import content, page

NAME = "report.html"
BEFORE = ("Figures", "Notes", "What was run")
"""The map stands before the first of these headings that there is."""


def write(
  workdir: pathlib.Path, text: str, atlas: content.Atlas | None = None
) -> pathlib.Path:
  """Writes `report.html`, which needs none of the files beside it.

  Pictures in the folder are held by the page; links to other files stay, and
  lead to the page of a report instead of its text.

  Args:
    workdir: folder of the report.
    text: its markdown.
    atlas: networks for the map; None: no map.
  """
  parser = markdown_it.MarkdownIt("commonmark", {"html": False})
  tokens = parser.enable("table").parse(text)
  title = "Report"
  if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
    title, tokens = tokens[1].content, tokens[3:]
  for token in tokens:
    for child in token.children or ():
      _relink(child)
      _hold(child, workdir)
  scripts = ""
  parts = [tokens]
  markup = ""
  if atlas is not None:
    drawn = page.map_of(atlas)
    scripts = drawn.scripts
    markup = "\n".join(
      [
        f"<h2>{html.escape(atlas.title)}</h2>",
        f"<p>{html.escape(' '.join(atlas.said))}</p>" if atlas.said else "",
        drawn.markup,
      ]
    )
    place = _place(tokens)
    parts = [tokens[:place], tokens[place:]]
  body = markup.join(
    parser.renderer.render(part, parser.options, {}) for part in parts
  )
  written = page.document(title, body, scripts, kind="text")
  return atomic.write_atomically(workdir / NAME, written)


def _place(tokens: Sequence[token_lib.Token]) -> int:
  """Returns where the map stands among the tokens of a report."""
  for n, token in enumerate(tokens[:-1]):
    if token.tag == "h2" and tokens[n + 1].content in BEFORE:
      return n
  return len(tokens)


def _relink(token: token_lib.Token) -> None:
  """Turns a link to another report into one to its page."""
  if token.type == "link_open":
    href = str(token.attrGet("href") or "")
    token.attrSet("href", re.sub(r"\breport\.md$", NAME, href))


def _hold(token: token_lib.Token, workdir: pathlib.Path) -> None:
  """Turns a picture in the folder into markup that holds it."""
  if token.type != "image":
    return
  file = workdir / str(token.attrGet("src") or "")
  if file.suffix == ".png" and file.is_file():
    token.type = "html_inline"
    token.content = page.inlined(file.read_bytes(), token.content)
