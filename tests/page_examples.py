"""The Python of a page, executed, beside what the page shows of its output."""

import contextlib
import io
import re

import numpy as np

from test_readme import FENCE, REPOSITORY

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def printed_and_shown(page):
    """Runs the blocks of a page in order; of each text block, what the Python before it printed and
    what the page shows."""
    examples = FENCE.findall((REPOSITORY / "docs" / page).read_text())
    assert any(language == "python" for language, _ in examples)
    namespace: dict[str, object] = {"__name__": page}
    printed = ""
    for number, (language, block) in enumerate(examples, start=1):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, f"docs/{page}, block {number}", "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            yield printed, block


def run_examples(page, *, rtol, atol):
    """Run a page; all that it shows is what is printed."""
    for printed, shown in printed_and_shown(page):
        assert_shown(printed, shown, rtol=rtol, atol=atol)


def assert_shown(printed, shown, *, rtol, atol, number=NUMBER):
    """The same words, and numbers within the tolerances."""
    words = [number.sub("#", text).split() for text in (printed, shown)]
    assert words[0] == words[1], f"printed:\n{printed}"
    ours, theirs = ([float(x) for x in number.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=printed)
