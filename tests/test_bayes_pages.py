"""The Python of the pages on Bayesian models is executed, on a worker of its own."""

import pytest

from test_readme import REPOSITORY, blocks


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("m6.md", marks=pytest.mark.slow),
        "views.md",
        pytest.param("instrumented.md", marks=pytest.mark.slow),
        pytest.param("bayes-factors.md", marks=pytest.mark.slow),
        pytest.param("bayes-levels.md", marks=pytest.mark.slow),
    ],
)
def test_documentation_examples_run(page):
    examples = blocks((REPOSITORY / "docs" / page).read_text(), ("python",))
    assert examples
    namespace: dict[str, object] = {"__name__": page}
    for number, block in enumerate(examples, start=1):
        exec(compile(block, f"docs/{page}, python block {number}", "exec"), namespace)
