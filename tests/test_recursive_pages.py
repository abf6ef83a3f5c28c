"""The Python of the pages on recursive networks, order books and execution is executed, and prints
what the pages show."""

import pytest

from page_examples import run_examples

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
    run_examples(page, rtol=RELATIVE, atol=ABSOLUTE)
