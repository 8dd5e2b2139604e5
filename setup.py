"""What a package index shows of the README; all else is in pyproject.toml.

An index has no files beside the page, so relative links and pictures lead
nowhere there. With an address `Source` in `[project.urls]` they become those of
that host; without, pictures are left out with their captions, and of links the
words remain.
"""

import pathlib
import re
import tomllib

import setuptools

ROOT = pathlib.Path(__file__).parent
CAPTIONED = re.compile(r"!\[[^\]]*\]\((?!\w+:)[^)\s]+\)\n(\n\*[^*\n]+\*\n)?")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def page(text: str, source: str = "") -> str:
  """Returns Markdown without relative links.

  Args:
    text: the README.
    source: address of the repository, as code hosts have them; empty: none.
  """

  def absolute(link: re.Match) -> str:
    picture, words, path = link.groups()
    if not source:
      return words
    kind = "raw" if picture else "blob"
    return f"{picture}[{words}]({source.rstrip('/')}/{kind}/main/{path})"

  if not source:
    text = CAPTIONED.sub("", text)
  parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
  parts[::2] = [LINK.sub(absolute, part) for part in parts[::2]]
  return re.sub(r"\n{3,}", "\n\n", "".join(parts))


if __name__ == "__main__":
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  setuptools.setup(
    long_description=page(
      (ROOT / "README.md").read_text(),
      project.get("urls", {}).get("Source", ""),
    ),
    long_description_content_type="text/markdown",
  )
