"""Studies that run from the repository: `python -m experiments.<name> [--quick]`."""

import os

# Threads enough for several batched factorisations of LAPACK at once (docs/index.md); read when the
# first array is made.
os.environ.setdefault("NPROC", str(max(16, os.cpu_count() or 1)))
