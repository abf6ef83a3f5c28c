"""The Python of the pages on Bayesian models is executed, on a worker of its own, and prints what
the pages show."""

import contextlib
import io
import re

import numpy as np
import pytest

from test_readme import FENCE, REPOSITORY

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
# Chains on another processor take other roundings, and soon other ways.
RELATIVE, ABSOLUTE = 0.3, 0.1


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("m6.md", marks=pytest.mark.slow),
        "views.md",
        pytest.param("instrumented.md", marks=pytest.mark.slow),
        pytest.param("bayes-factors.md", marks=pytest.mark.slow),
        pytest.param("bayes-levels.md", marks=pytest.mark.slow),
        pytest.param("bayes-inference.md", marks=pytest.mark.slow),
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
    """The same words, and numbers as near as chains of another rounding come."""
    words = [NUMBER.sub("#", text).split() for text in (printed, shown)]
    assert words[0] == words[1], f"printed:\n{printed}"
    ours, theirs = ([float(x) for x in NUMBER.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=ABSOLUTE, err_msg=printed)
