"""What a package index shows of the README has no link that leads nowhere."""

import importlib.util
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
TEXT = """# A name

![A curve](docs/curve.png)

*What it shows.*

See [the ideas](docs/ideas.md#one), [the web](https://example.org) and
[below](#end).

```
[not](a/link)
```
"""


def page(text, source=""):
  spec = importlib.util.spec_from_file_location("setup_page", ROOT / "setup.py")
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.page(text, source)


def test_without_an_address_words_remain():
  made = page(TEXT)
  assert "See the ideas, [the web](https://example.org) and\n" in made
  assert "curve" not in made and "What it shows" not in made
  assert "[below](#end)" in made and "[not](a/link)" in made


def test_with_an_address_links_and_pictures_are_of_the_host():
  made = page(TEXT, "https://host/name/")
  assert "![A curve](https://host/name/raw/main/docs/curve.png)" in made
  assert "(https://host/name/blob/main/docs/ideas.md#one)" in made
  assert "[below](#end)" in made and "[not](a/link)" in made


def test_no_link_of_the_readme_is_relative():
  text = (ROOT / "README.md").read_text()
  for source in ("", "https://host/name"):
    made = page(text, source)
    links = re.findall(r"\]\(([^)]+)\)", made)
    assert all(link.startswith("https://") for link in links)
    assert bool(links) == ("![" in made) == bool(source)
