"""The progress of a study on a terminal: cells done, paths per second, time left."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np


@contextlib.contextmanager
def follow(
    name: str, num_cells: int, num_paths: int, shown: bool | None
) -> Iterator[Callable[[int, int, bool], None]]:
    """A function to be told of a cell, how many more of its paths are there, and whether they were
    there before.

    `shown` None: on stderr if that is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda cell, paths, earlier=False: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cells]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    done, new, started = np.zeros(num_cells, int), 0, time.perf_counter()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(
            name, total=num_cells * num_paths, cells=f"0/{num_cells} cells", rate=""
        )

        def tell(cell: int, paths: int, earlier: bool = False) -> None:
            nonlocal new
            done[cell] += paths
            cells = f"{int((done >= num_paths).sum())}/{num_cells} cells"
            if earlier:
                # Reset rather than advanced: what was there before is no speed.
                progress.reset(task, completed=int(done.sum()), cells=cells, rate="")
                return
            new += paths
            rate = f"{new / max(time.perf_counter() - started, 1e-9):.1f} paths/s"
            progress.update(task, advance=paths, cells=cells, rate=rate)

        yield tell
