"""Where the parts of a study or a backtest are computed, and how processes share them.

A part is a chunk of a cell. A job says how one is computed; an engine decides where; a plan keeps
what comes back and leaves to other processes on the same folder what they are at.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax

from jaxfc.running.replicate import Device
from jaxfc.running.store import ResultStore

Todo = Iterator[tuple[int, int]]


@runtime_checkable
class Runner(Protocol):
    """What computes parts, keeping compiled programs for later ones."""

    def compute(self, cell: int, chunk: int) -> Any:
        """The answer of a part."""
        ...


@runtime_checkable
class Job(Protocol):
    """All that another process needs to compute any part of the work; it can be pickled."""

    def runner(self, devices: Sequence[Device] | None = None) -> Runner:
        """What computes the parts, on these devices; None: on those that a task should have."""
        ...

    def place(self, cell: int, chunk: int) -> str:
        """A part in words, for messages."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Where parts are computed: `Local()` or `Ray()`."""

    def compute(self, job: Any, todo: Todo) -> Iterator[tuple[int, int, Any]]:
        """Cell, chunk and answer of everything in `todo`, in whatever order, taken from it as it
        can be worked on."""
        ...


@dataclass(frozen=True)
class Local:
    """Parts one after the other on this machine, each spread over its devices (default: all)."""

    devices: Sequence[Device] | None = None

    @property
    def places(self) -> tuple[Device, ...]:
        """The devices."""
        return tuple(jax.local_devices() if self.devices is None else self.devices)

    def compute(self, job: Job, todo: Todo) -> Iterator[tuple[int, int, Any]]:
        """Cell, chunk and answer of all that is to do."""
        runner = job.runner(self.places)
        for cell, chunk in todo:
            try:
                part = runner.compute(cell, chunk)
            except Exception as error:
                error.add_note(f"This was {job.place(cell, chunk)}.")
                raise
            yield cell, chunk, part


class Plan:
    """What is left to compute, shared with other processes by claims, and who was told of it.

    `tell(cell, chunk, was_there)` hears of every part that is kept by now.
    """

    def __init__(
        self,
        store: ResultStore,
        parts: Sequence[tuple[int, int]],
        tell: Callable[[int, int, bool], None],
    ):
        self.store, self.parts, self.tell = store, parts, tell
        self.claimed: set[tuple[int, int]] = set()
        done = store.done()
        for part in parts:
            if part in done:
                tell(*part, True)
        self.missing = [part for part in parts if part not in done]

    def todo(self) -> Todo:
        """First what no other process has claimed, then what is missing all the same."""
        later = []
        for part in self.missing:
            if self.is_there(part):
                continue
            if not self.store.claim(*part):
                later.append(part)
                continue
            self.claimed.add(part)
            yield part
        for part in later:
            if not self.is_there(part):
                yield part

    def is_there(self, part: tuple[int, int]) -> bool:
        """Whether another process has kept a part by now."""
        if self.store.content(*part) is None:
            return False
        self.tell(*part, True)
        return True

    def finish(self, cell: int, chunk: int) -> None:
        """A part is kept."""
        self.store.release(cell, chunk)
        self.claimed.discard((cell, chunk))
        self.tell(cell, chunk, False)

    def follow(self, engine: Engine, job: Job) -> Iterator[tuple[int, int, Any]]:
        """The parts that are left, as an engine answers them; whoever takes one keeps it before it
        asks for the next. In the end no claim is left, of this process or of one that was
        killed."""
        try:
            for cell, chunk, part in engine.compute(job, self.todo()):
                yield cell, chunk, part
                self.finish(cell, chunk)
        finally:
            for part in self.claimed:
                self.store.release(*part)
        for part in self.parts:
            self.store.release(*part)
