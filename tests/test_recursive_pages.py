"""The Python of the pages on recursive networks, order books and execution is executed, and prints
what the pages show."""

import contextlib
import io

import numpy as np
import pytest

from test_bayes_pages import NUMBER
from test_readme import FENCE, REPOSITORY

# Pages show a few digits. What is learned or drawn moves with the rounding of the processor and of
# the precision.
RELATIVE, ABSOLUTE = 0.03, 0.03


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("recursive.md", marks=pytest.mark.slow),
        pytest.param("hybrid.md", marks=pytest.mark.slow),
        "order-books.md",
        "execution.md",
    ],
)
def test_documentation_examples_run(page):
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
            assert_shown(printed, block)


def assert_shown(printed: str, shown: str) -> None:
    """The same words, and numbers as near as their digits allow."""
    words = [NUMBER.sub("#", text).split() for text in (printed, shown)]
    assert words[0] == words[1], f"printed:\n{printed}"
    ours, theirs = ([float(x) for x in NUMBER.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=ABSOLUTE, err_msg=printed)
