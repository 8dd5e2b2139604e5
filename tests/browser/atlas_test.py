"""An atlas in a browser: what a reader does, and what then is seen."""

import time

import numpy as np
import pytest

from sne_jax.cli.atlas import layouts, page
from sne_jax.cli.reports import network_rows
from tests.browser import conftest

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def _no_error(browser):
  browser.errors()
  yield
  assert browser.errors() == []


def colours(browser):
  """Returns the numbers that colour the points, and the order of these."""
  return browser.js(
    "const t = document.getElementById('map').data[1];"
    "return Array.from(t.marker.color)"
  )


def test_hovering_tells_of_a_network(browser, small):
  path, atlas = small
  browser.open(path)
  assert browser.text("h1") == atlas.title
  assert not browser.driver.find_element("id", "tip").is_displayed()
  lonely = int(
    np.argmin(layouts.laid_out(layouts.standardised(atlas.codes))["PCA"][:, 0])
  )
  browser.mouse(browser.place(lonely))
  browser.until(lambda: browser.driver.find_element("id", "tip").is_displayed())
  tip = browser.text("#tip")
  assert atlas.names[lonely] in tip and "architecture" in tip
  given = atlas.columns["predicted accuracy"]
  ends = [x[lonely] for x in (given.values, given.low, given.high)]
  said = "{:.4g} [{:.4g}, {:.4g}]".format(*map(float, ends))
  assert said in tip and f"{atlas.columns['novelty'].values[lonely]:.4g}" in tip
  browser.shot("hover.png")
  browser.mouse((5, 5))
  browser.until(
    lambda: not browser.driver.find_element("id", "tip").is_displayed()
  )


def select(browser, name, word):
  field = browser.driver.find_element("id", name)
  for option in field.find_elements("tag name", "option"):
    if option.text == word:
      option.click()
      return
  raise AssertionError(f"{name} offers no {word}")


def test_colours_switch(browser, small):
  path, atlas = small
  browser.open(path)
  before = colours(browser)
  np.testing.assert_allclose(
    before, atlas.columns["predicted accuracy"].values, rtol=1e-5
  )
  select(browser, "colour", "dataset")
  browser.until(lambda: colours(browser) != before)
  words = [
    w.text
    for w in browser.driver.find_elements("css selector", "#legend button")
  ]
  given = atlas.columns["dataset"].values
  assert set(words) == set(given)
  assert [words[int(n)] for n in colours(browser)] == given.tolist()
  hidden = browser.driver.find_elements("css selector", "#legend button")[0]
  hidden.click()
  left = int((given != words[0]).sum())
  browser.until(lambda: len(colours(browser)) == left)
  select(browser, "colour", "learning_rate")
  rates = atlas.columns["learning_rate"].values
  known = np.isfinite(rates)
  browser.until(lambda: len(colours(browser)) == known.sum())
  np.testing.assert_allclose(
    colours(browser), np.log10(rates[known]), rtol=1e-4
  )
  assert "logarithmic" in browser.text("#legend")
  assert "unknown" in browser.text("#legend")


def test_another_map_has_the_same_networks_elsewhere(browser, small):
  path, atlas = small
  browser.open(path)
  before = browser.place(7)
  select(browser, "layout", "t-SNE")
  browser.until(lambda: browser.place(7) != before)
  browser.mouse(browser.place(7), "click")
  browser.until(lambda: browser.text("#network h2"))
  assert (
    browser.js(
      "return document.querySelectorAll('#map .xtitle')[0].textContent"
    )
    == "t-SNE 1"
  )


def box(browser):
  return browser.js(
    "const b = document.querySelector('#map .nsewdrag')"
    ".getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
  )


def marked(browser):
  """Returns how many networks stand out; None: nothing is selected."""
  return browser.js(
    "const t = document.getElementById('map').data;"
    "return t[1].selectedpoints"
    " ? t[0].selectedpoints.length + t[1].selectedpoints.length : null"
  )


def test_brushing_lists_networks(browser, small):
  path, atlas = small
  browser.open(path)
  left, top, width, height = box(browser)
  ends = [
    [round(left + x * width), round(top + y * height)]
    for x, y in ((0.3, 0.2), (0.4, 0.5), (0.6, 0.8))
  ]
  browser.mouse(ends[0], "down", *ends[1:], "up")
  browser.until(lambda: "selected" in browser.text("#selection"))
  places = [browser.place(n) for n in range(300)]
  within = {
    atlas.names[n]
    for n, (x, y) in enumerate(places)
    if ends[0][0] <= x <= ends[2][0] and ends[0][1] <= y <= ends[2][1]
  }
  listed = browser.js(
    "return [...document.querySelectorAll('#selection tbody tr')]"
    ".map((row) => row.children[0].textContent)"
  )
  assert 20 < len(listed) <= 200
  assert len(set(listed) ^ within) <= 3  # Those on the line are anybody's.
  assert f"{len(listed)} selected" in browser.text("#selection h2")
  header = [
    h.text for h in browser.driver.find_elements("css selector", "th button")
  ]
  assert header[:3] == ["network ↑", "predicted accuracy", "novelty"]
  browser.driver.find_elements("css selector", "th button")[1].click()
  guess = atlas.columns["predicted accuracy"].values
  order = sorted(listed, key=lambda name: guess[int(name[3:])])
  first = lambda: browser.js(
    "return document.querySelector('#selection tbody td').textContent"
  )
  assert first() == order[0]
  browser.driver.find_elements("css selector", "th button")[1].click()
  assert first() == order[-1]
  select(browser, "colour", "dataset")
  browser.until(lambda: browser.text("#legend").count("\n") >= 2)
  assert f"{len(listed)} selected" in browser.text("#selection h2")
  browser.driver.find_elements("css selector", "#selection tbody tr")[0].click()
  browser.until(lambda: browser.text("#network h2") == first())
  browser.shot("brush.png")
  within = int(listed[len(listed) // 2][3:])
  browser.js("scrollTo(0, 0)")
  browser.mouse(browser.place(within), "click")  # Also within the box.
  near = lambda: np.subtract(
    browser.place(within), browser.place(int(browser.text("#network h2")[3:]))
  )
  browser.until(lambda: np.abs(near()).max() <= 6)
  browser.until(lambda: marked(browser) == len(listed))
  browser.driver.find_elements("css selector", "#selection .bar button")[
    1
  ].click()
  browser.until(lambda: not browser.text("#selection h2"))
  browser.until(lambda: marked(browser) is None)


@pytest.mark.parametrize(
  "chosen", [1, 2]
)  # A residual network, and a plain one.
def test_a_click_shows_the_network_and_its_neighbours(browser, small, chosen):
  path, atlas = small
  browser.open(path)
  browser.mouse(browser.place(chosen), "click")
  browser.until(lambda: browser.text("#network h2"))
  shown = atlas.names.index(browser.text("#network h2"))
  at = np.subtract(browser.place(shown), browser.place(chosen))
  assert np.abs(at).max() <= 6  # Another may lie upon it.
  spec = atlas.specs[atlas.numbers[shown]]
  count = lambda what: browser.js(
    "return document.querySelectorAll(arguments[0]).length",
    f"#network .picture {what}",
  )
  rows = len(network_rows.rows_of(spec))
  assert count("> rect") == rows
  assert count("g > rect") == rows * network_rows.BINS
  assert count("path.skip") == len(spec.skips)
  near, _ = layouts.nearest(layouts.standardised(atlas.codes))
  links = browser.driver.find_elements("css selector", ".near button")
  listed = [link.text for link in links]
  assert listed == [atlas.names[n] for n in near[shown]]
  links[0].click()
  browser.until(lambda: browser.text("#network h2") == listed[0])


def test_names_are_found(browser, small):
  path, atlas = small
  browser.open(path)
  field = browser.driver.find_element("id", "find")
  field.send_keys("NET0010", "\n")
  browser.until(lambda: browser.text("#found") == "10 found")
  assert browser.text("#network h2") == "net00100"
  assert "10 selected" in browser.text("#selection h2")


def test_dark_and_light(browser, small):
  path, _ = small
  paper = "return getComputedStyle(document.body).backgroundColor"
  font = "return document.getElementById('map')._fullLayout.font.color"
  browser.open(path, theme="dark")
  dark = browser.js(paper), browser.js(font)
  browser.driver.find_element("id", "theme").click()
  browser.until(lambda: browser.js(paper) != dark[0])
  browser.until(lambda: browser.js(font) != dark[1])
  light = browser.js(paper)
  brightness = lambda rgb: sum(map(int, rgb[4:-1].split(", ")))
  assert brightness(light) > 600 and brightness(dark[0]) < 150
  browser.open(path, theme="dark")  # What was chosen is kept.
  assert browser.js(paper) == light
  browser.js("localStorage.clear()")


def test_a_phone_shows_all_of_it(browser, small):
  path, _ = small
  browser.open(path, size="phone")
  wide = browser.js("return document.documentElement.scrollWidth")
  assert wide <= 390
  browser.js(
    "document.getElementById('find').value = 'net00002';"
    "document.getElementById('find').dispatchEvent(new Event('change'))"
  )
  browser.until(lambda: browser.text("#network h2") == "net00002")
  assert browser.js("return document.documentElement.scrollWidth") <= 390
  browser.shot("phone.png")


def slowed():
  """Returns how many times longer work takes now than its processor time."""
  began, spent = time.monotonic(), time.process_time()
  while time.process_time() - spent < 0.5:
    pass
  return max(1.0, (time.monotonic() - began) / 0.5)


def test_twenty_thousand_networks(browser, tmp_path):
  atlas = conftest.atlas_of(20_000)
  path = tmp_path / "large.html"
  page.write(path, atlas)
  assert path.stat().st_size < 25e6
  seconds, busy = min((browser.open(path), slowed()) for _ in range(3))
  # Seconds of the clock say something on a machine with nothing else to do.
  assert seconds < 3.0 or busy > 1.2, f"open in {seconds:.2f} s"
  browser.shot("large.png")
  browser.mouse(browser.place(123), "click")
  browser.until(lambda: browser.text("#network h2"))
  left, top, width, height = box(browser)
  browser.mouse(
    *([round(left + 9), round(top + 30)], "down"),
    *([round(left + width / 2), round(top + 90)],),
    *([round(left + width - 9), round(top + height - 9)], "up"),
  )
  browser.until(lambda: "20000 selected" in browser.text("#selection h2"), 60)
  select(browser, "colour", "dataset")
  browser.until(lambda: "svhn" in browser.text("#legend"))
