"""Property-based tests draw the same few cases in every run; `JAXFC_PROPERTIES=thorough` draws many
new ones."""

import os
import tempfile

from hypothesis import Phase, configuration, settings

# Without the phase that explains failures, which runs them under a tracer.
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
QUICK = {"max_examples": 12, "derandomize": True}
settings.register_profile("quick", phases=PHASES, deadline=None, database=None, **QUICK)
settings.register_profile("thorough", max_examples=1000, deadline=None, database=None)
settings.load_profile(os.environ.get("JAXFC_PROPERTIES", "quick"))
# Hypothesis keeps tables of characters; they are no part of the project.
configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "hypothesis"))
