"""The Python of the page on composition is executed and prints what the page shows."""

import contextlib
import io
import re

import numpy as np
import pytest

from test_readme import FENCE, REPOSITORY

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.mark.slow
def test_the_page_runs_and_shows_what_it_prints():
    """Numbers that are shown stand within two units of their last digit, or two percent: another
    processor ends searches and trainings elsewhere."""
    pytest.importorskip("skfolio")
    examples = FENCE.findall((REPOSITORY / "docs" / "composition.md").read_text())
    namespace: dict[str, object] = {"__name__": "composition.md"}
    printed, num_shown = "", 0
    for number, (language, block) in enumerate(examples, start=1):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, f"composition.md, block {number}", "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            num_shown += 1
            words = [NUMBER.sub("#", text).split() for text in (printed, block)]
            assert words[0] == words[1], f"printed:\n{printed}"
            for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(block), strict=True):
                digits = len(theirs.partition(".")[2])
                np.testing.assert_allclose(
                    float(ours), float(theirs), rtol=0.02, atol=2.0 * 10.0**-digits, err_msg=printed
                )
    assert num_shown >= 4
