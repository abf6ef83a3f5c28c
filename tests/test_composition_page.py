"""The Python of the page on composition is executed and prints what the page shows."""

import re

import numpy as np
import pytest

from page_examples import printed_and_shown

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.mark.slow
def test_the_page_runs_and_shows_what_it_prints():
    """Numbers that are shown stand within two units of their last digit, or two percent: another
    processor ends searches and trainings elsewhere."""
    pytest.importorskip("skfolio")
    num_shown = 0
    for printed, shown in printed_and_shown("composition.md"):
        num_shown += 1
        words = [NUMBER.sub("#", text).split() for text in (printed, shown)]
        assert words[0] == words[1], f"printed:\n{printed}"
        for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
            digits = len(theirs.partition(".")[2])
            np.testing.assert_allclose(
                float(ours), float(theirs), rtol=0.02, atol=2.0 * 10.0**-digits, err_msg=printed
            )
    assert num_shown >= 4
