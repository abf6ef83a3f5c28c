"""The page of a backtest in a browser: no error, all pictures, no sideways scrolling, a screenshot.

Skipped where there is no Chromium (Debian: apt-get install chromium).
"""

import re
import shutil
import subprocess
import tempfile

import matplotlib.image
import numpy as np
import pytest

from backtest_pages import example
from jaxfc.report import write_backtest_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium")
# A frame as wide as the screen in question; what it measures becomes text of this page.
MEASURE = """<!doctype html><title>measure</title>
<iframe id="frame" src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="answer"></pre>
<script>
frame.onload = () => {{
  const page = frame.contentDocument, images = [...page.images];
  const size = getComputedStyle(page.body).fontSize;
  const first = page.querySelector("a[href], [tabindex='0']");
  const away = first.getBoundingClientRect().right;
  first.focus();
  const shown = first.getBoundingClientRect();
  const boxes = [...page.querySelectorAll(".wide")];
  const focusable = [...page.querySelectorAll("a[href], [tabindex='0']")].length;
  answer.textContent = [
    "scroll " + page.documentElement.scrollWidth,
    "images " + images.length,
    "loaded " + images.filter(i => i.complete && i.naturalWidth > 300).length,
    "sources " + images.filter(i => i.currentSrc != i.src).length,
    "font " + parseFloat(size),
    "focusable " + focusable,
    "skip " + (away < 0 && shown.left >= 0 && shown.top >= 0 && first.hash == "#main"),
    "boxes " + boxes.every(box => box.tabIndex == 0 && box.getAttribute("aria-label")),
    "inside " + boxes.every(box => box.getBoundingClientRect().right <= {width}),
    "headings " + page.querySelectorAll("h1, h2").length,
  ].join("\\n");
}};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_backtest_report(example(40), folder)
    return folder


def browse(folder, page, *options):
    """What the browser printed; its console on stderr."""
    profile = tempfile.mkdtemp(prefix="profile", dir=folder)
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *options, (folder / page).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("width", [1280, 390])
def test_at_a_width(folder, width):
    name = f"measure{width}.html"
    (folder / name).write_text(MEASURE.format(width=width))
    done = browse(folder, name, "--virtual-time-budget=8000", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="answer">([^<]+)</pre>', done.stdout)
    assert found is not None, done.stdout[-2000:]
    facts = dict(line.split(" ") for line in found[1].splitlines())
    assert int(facts["scroll"]) <= width
    assert facts["images"] == facts["loaded"] == "7"
    assert facts["sources"] == ("7" if width < 640 else "0")
    assert float(facts["font"]) >= 16 and int(facts["focusable"]) > 15
    assert int(facts["headings"]) == 8
    assert facts["skip"] == facts["boxes"] == facts["inside"] == "true"


@pytest.mark.parametrize(("width", "height"), [(1280, 2000), (390, 1200)])
def test_screenshot(folder, width, height):
    picture = folder / f"screen{width}.png"
    options = (f"--window-size={width},{height}", f"--screenshot={picture}")
    done = browse(folder, "report.html", *options)
    assert "CONSOLE" not in done.stderr
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (height, width)
    assert len(np.unique(pixels[..., :3].reshape(-1, 3).round(1), axis=0)) > 20


def test_an_error_of_the_console_is_seen(folder):
    (folder / "wrong.html").write_text("<script>console.error('planted'); absent();</script>")
    done = browse(folder, "wrong.html", "--virtual-time-budget=500", "--dump-dom")
    assert "CONSOLE" in done.stderr and "planted" in done.stderr and "absent" in done.stderr
