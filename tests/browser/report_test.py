"""A report in a browser: its text, its pictures and its map on one page."""

import matplotlib.pyplot as plt
import pytest

from sne_jax.cli.reports import html_report
from tests.browser import conftest

pytestmark = pytest.mark.browser

TEXT = """# How it went

| model | tau |
| ----- | --: |
| seed 0 | 0.9 |

## Figures

![A line](<figures/a.png>)
"""


@pytest.fixture
def path(tmp_path):
  (tmp_path / "figures").mkdir()
  figure, axes = plt.subplots()
  axes.plot([0, 1])
  figure.savefig(tmp_path / "figures" / "a.png")
  plt.close(figure)
  atlas = conftest.atlas_of(300)
  written = html_report.write(tmp_path, TEXT, atlas)
  (tmp_path / "figures" / "a.png").unlink()  # The page needs no other file.
  return written


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_of_it_is_seen(browser, path, size, theme):
  browser.errors()
  browser.open(path, size, theme)
  assert browser.text("h1") == "How it went" and "0.9" in browser.text("table")
  loaded = "return [...document.images].map(i => i.naturalWidth)"
  (width,) = browser.js(loaded)
  assert width > 100
  wide = "return document.documentElement.scrollWidth <= innerWidth"
  assert browser.js(wide)
  points = "return document.getElementById('map').data[1].x.length"
  assert browser.js(points) == 300
  browser.shot(f"report_{size}_{theme}.png")
  assert browser.errors() == []
