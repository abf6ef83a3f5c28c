"""The Python of the pages on Bayesian models is executed, on a worker of its own, and prints what
the pages show."""

import pytest

from page_examples import run_examples

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
    run_examples(page, rtol=RELATIVE, atol=ABSOLUTE)
