"""Studies that run from the repository: `python -m experiments.<name> [--quick]`."""
