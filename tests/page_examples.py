"""The Python of a page, executed, beside what the page shows of its output."""

import contextlib
import io
import re

import numpy as np

from test_readme import FENCE, REPOSITORY

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def run_examples(page, *, rtol, atol):
    """Run the blocks of a page in order; a text block is what the Python before it printed."""
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
            assert_shown(printed, block, rtol=rtol, atol=atol)


def assert_shown(printed, shown, *, rtol, atol, number=NUMBER):
    """The same words, and numbers within the tolerances."""
    words = [number.sub("#", text).split() for text in (printed, shown)]
    assert words[0] == words[1], f"printed:\n{printed}"
    ours, theirs = ([float(x) for x in number.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=printed)
