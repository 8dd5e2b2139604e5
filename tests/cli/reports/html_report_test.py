"""The page of a report: alone, and with all that its text has."""

import base64
import re

import pytest

from sne_jax.cli.reports import html_report
from tests.cli.atlas import page_test, reading

PNG = b"\x89PNG\r\n\x1a\nnot much of a picture"
TEXT = """# How <it> went

Well, **really**.

| model | tau |
| ----- | --: |
| seed 0 | 0.9 |

## Figures

![A "caption" <b>](<figures/a.png>)

[one](<runs/a/report.md>), [flags.txt](<flags.txt>), <script>alert(1)</script>

![gone](<figures/gone.png>)

## Notes

- A note.
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "figures").mkdir()
  (tmp_path / "figures" / "a.png").write_bytes(PNG)
  return tmp_path


def test_a_page_holds_text_tables_and_pictures(folder):
  path = html_report.write(folder, TEXT)
  text = path.read_text()
  assert path == folder / "report.html"
  assert text.count("<h1>How &lt;it&gt; went</h1>") == 1 == text.count("<h1")
  assert "<strong>really</strong>" in text and "<td>seed 0</td>" in text
  (held,) = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
  assert base64.b64decode(held) == PNG
  assert 'alt="A &quot;caption&quot; &lt;b&gt;"' in text
  assert 'href="runs/a/report.html"' in text and 'href="flags.txt"' in text
  assert "<script>alert" not in text and "&lt;script&gt;alert" in text
  assert 'id="map"' not in text and 'id="plotly"' not in text
  assert text == html_report.write(folder, TEXT).read_text()


@pytest.mark.parametrize(
  ("text", "following"), [(TEXT, "<h2>Figures</h2>"), ("# A\n\nB\n", "")]
)
def test_the_map_stands_after_the_results(folder, text, following):
  atlas = page_test.made(title="The map")
  written = html_report.write(folder, text, atlas).read_text()
  body = written.partition("<h2>The map</h2>")
  assert body[1] and 'id="map"' in body[2]
  assert following in body[2]
  assert ("seed 0" in body[0]) == (text is TEXT)
  header, _ = reading.data_of(written)
  assert header["names"] == atlas.names
