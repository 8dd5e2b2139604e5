"""Chromium without a screen, and pages to open in it."""

import os
import shutil
import time

import numpy as np
import pytest

from sne_jax.cli.atlas import content, page
from sne_jax.networks import families

ARGUMENTS = (
  *("--headless=new", "--no-sandbox", "--hide-scrollbars"),
  # WebGL by software, where there is no graphics card.
  *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
  # Whatever a page would ask a network for fails, and is in the console.
  "--host-resolver-rules=MAP * ~NOTFOUND",
)
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}
SPECS = (
  families.cnn((3, 8, 8), (8, 16), num_classes=10),
  families.resnet((3, 8, 8), (8,), blocks=2, num_classes=10),
  families.mlp((16, 24, 24, 10)),
)


class Browser:
  """A browser with a page; what is done is done by mouse, as a reader does."""

  def __init__(self):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
      pytest.skip("no chromium and chromedriver (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
      options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    self.driver = webdriver.Chrome(options=options, service=service)
    self._actions = webdriver.ActionChains

  def open(self, path, size="desktop", theme="light") -> float:
    """Opens a page; returns the seconds until it can be used."""
    width, height = SIZES[size]
    self.driver.execute_cdp_cmd(
      "Emulation.setDeviceMetricsOverride",
      {
        "width": width,
        "height": height,
        "deviceScaleFactor": 1,
        "mobile": size == "phone",
      },
    )
    self.driver.execute_cdp_cmd(
      "Emulation.setEmulatedMedia",
      {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )
    self.driver.get("about:blank")
    self.driver.get(path.as_uri())
    ready = "return document.documentElement.dataset.ready"
    return int(self.until(lambda: self.js(ready), 60)) / 1000

  def js(self, code, *arguments):
    """Runs a script in the page."""
    return self.driver.execute_script(code, *arguments)

  def until(self, told, seconds=20):
    """Waits until something is true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := told()):
      assert time.monotonic() < end, "it did not come to pass"
      time.sleep(0.02)
    return found

  def place(self, network):
    """Returns where a network is on the map."""
    return [
      round(x) for x in self.js("return atlas.pixelOf(arguments[0])", network)
    ]

  def mouse(self, *steps):
    """Moves the mouse: places, and "down" and "up" and "click"."""
    chain = self._actions(self.driver, duration=60)
    for step in steps:
      if step == "down":
        chain.click_and_hold()
      elif step == "up":
        chain.release()
      elif step == "click":
        chain.click()
      else:
        chain.w3c_actions.pointer_action.move_to_location(*step)
        chain.pause(0.1)
    chain.perform()

  def text(self, selector):
    """Returns the text of the first element."""
    found = self.driver.find_elements("css selector", selector)
    return found[0].text if found else ""

  def shot(self, path):
    """Writes a picture of what is seen."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
      self.driver.save_screenshot(os.path.join(folder, path))

  def errors(self):
    """Returns what is in the console."""
    return self.driver.get_log("browser")


@pytest.fixture(scope="session")
def browser():
  """One browser for all tests."""
  made = Browser()
  yield made
  made.driver.quit()


def atlas_of(count, seed=0):
  """Networks of three architectures, whose codes know their accuracy."""
  rng = np.random.default_rng(seed)
  numbers = np.arange(count) % len(SPECS)
  accuracy = rng.beta(4, 2, count)
  codes = rng.normal(size=(count, 24))
  codes[:, :3] += 5 * np.eye(3)[numbers]
  codes[:, 3] += 9 * accuracy
  guess = accuracy + 0.04 * rng.normal(size=count)
  vectors = [
    rng.normal(
      scale=0.2 + accuracy[n], size=SPECS[numbers[n]].num_weights
    ).astype(np.float32)
    for n in range(count)
  ]
  datasets = np.array(["mnist", "svhn", "cifar10"])[rng.integers(0, 3, count)]
  rates = 10 ** rng.uniform(-4, -1, count)
  columns = {
    "predicted accuracy": content.Column(guess, guess - 0.07, guess + 0.07),
    "error of accuracy": content.Column(guess - accuracy),
    "novelty": content.Column(rng.gamma(4, 0.1, count)),
    "accuracy": content.Column(accuracy, about="on test images"),
    "learning_rate": content.Column(np.where(rates < 2e-4, np.nan, rates)),
    "dataset": content.Column(datasets),
    "part": content.Column(np.array(["train", "val", "test"])[numbers]),
    "architecture": content.Column(np.array(["a", "b", "c"])[numbers]),
  }
  return content.Atlas(
    title="Accuracies of small networks",
    codes=codes,
    code_name="codes of the encoder",
    names=[f"net{n:05d}" for n in range(count)],
    specs=SPECS,
    numbers=numbers,
    vectors=vectors,
    columns=columns,
    said=("A zoo of three architectures, made up for a test.",),
  )


@pytest.fixture(scope="session")
def small(tmp_path_factory):
  """A page of 300 networks, and what it shows."""
  path = tmp_path_factory.mktemp("browser") / "small.html"
  atlas = atlas_of(300)
  page.write(path, atlas, names=("pca", "tsne"))
  return path, atlas
