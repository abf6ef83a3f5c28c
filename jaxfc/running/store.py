"""Results on disk: a folder of Parquet files that can be left and continued at any moment.

A part of the results (a cell of a grid, a chunk of its paths) is one file, which appears whole or
not at all: it is written under a temporary name, flushed to the disk, and renamed. Its name ends in
a checksum of its bytes, so a file that was cut off or changed later is seen and set aside, never
read. Processes that share a folder cannot harm each other: at worst a part is computed twice, and
either file answers for it.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import reprlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxfc.running.describe import difference
from jaxfc.serialisation import write_atomically

FORMAT = 1
MANIFEST = "manifest.json"
PART = re.compile(r"^cell(\d+)-chunk(\d+)-([0-9a-f]{32})\.parquet$")
NOTES = b"jaxfc"  # the key of a part's notes in the metadata of its file


class ResultStore:
    """The folder of one study.

    `config` says what is computed, as JSON values; it is written into `manifest.json` with its hash
    when the folder is new, and has to be the same ever after. `facts` (versions, device) are
    recorded once and never compared. Without a `config` the folder's own is taken, for reading.

    **Raises:** `ValueError` for a folder that belongs to another configuration (naming what
    differs) or holds other files and no manifest; `OSError` for one that cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ):
        self.folder = Path(folder)
        if config is None:
            self.config = read_manifest(self.folder)["config"]
            return
        self.config = json.loads(json.dumps(config))
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            check_empty(self.folder)
            content = {
                "format": FORMAT,
                "config_hash": config_hash(self.config),
                "config": self.config,
                "facts": dict(facts or {}),
            }
            # Two processes that start together write the same configuration, or the check below
            # refuses the later one.
            with contextlib.suppress(FileExistsError):
                write_atomically(manifest, json.dumps(content, indent=1).encode(), replace=False)
        check_config(self.folder, self.config)

    def write(
        self, cell: int, chunk: int, table: pd.DataFrame, notes: Mapping[str, Any] | None = None
    ) -> Path:
        """Keep a part, with `notes` (seconds, failures) in the metadata of its file.

        **Raises:** `OSError` if the disk is full or gone; what was kept before stays.
        """
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        metadata = {**(arrow.schema.metadata or {}), NOTES: json.dumps(dict(notes or {})).encode()}
        buffer = io.BytesIO()
        pq.write_table(arrow.replace_schema_metadata(metadata), buffer)
        content = buffer.getvalue()
        name = f"cell{cell:05d}-chunk{chunk:06d}-{checksum(content)}.parquet"
        try:
            write_atomically(self.folder / name, content)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cell {cell}, chunk {chunk} could not be kept in {self.folder} "
                f"({error.strerror}); what was kept before stays, and a rerun goes on from there",
            ) from error
        return self.folder / name

    def read(self, cell: int, chunk: int) -> pd.DataFrame | None:
        """A part, or None where there is none that is whole."""
        content = self.content(cell, chunk)
        return None if content is None else unpack(content)[0]

    def notes(self, cell: int, chunk: int) -> dict[str, Any] | None:
        """The notes of a part, or None where there is none that is whole."""
        content = self.content(cell, chunk)
        return None if content is None else unpack(content)[1]

    def parts(self) -> Iterator[tuple[int, int, pd.DataFrame, dict[str, Any]]]:
        """Cell, chunk, table and notes of every part, in order; each file is read once."""
        found = set()
        for path in self.files():
            cell, chunk, _ = parse(path)
            content = None if (cell, chunk) in found else self.whole(path)
            if content is not None:
                found.add((cell, chunk))
                yield cell, chunk, *unpack(content)

    def claim(self, cell: int, chunk: int) -> bool:
        """Say to other processes that this one computes a part; False if one has said so before.

        A courtesy, not a lock: a process that was killed leaves its claims behind, so what is
        claimed and missing in the end has to be computed all the same.
        """
        try:
            self.claim_of(cell, chunk).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def release(self, cell: int, chunk: int) -> None:
        """Take a claim back, whoever made it."""
        with contextlib.suppress(FileNotFoundError):
            self.claim_of(cell, chunk).unlink()

    def claim_of(self, cell: int, chunk: int) -> Path:
        """The file that stands for a claim."""
        return self.folder / f".claim-cell{cell:05d}-chunk{chunk:06d}"

    def content(self, cell: int, chunk: int) -> bytes | None:
        """The bytes of the first whole file of a part."""
        contents = (self.whole(path) for path in self.files(cell, chunk))
        return next((content for content in contents if content is not None), None)

    def done(self) -> set[tuple[int, int]]:
        """Every (cell, chunk) of which a whole file is there; reads all files."""
        found = set()
        for path in self.files():
            cell, chunk, _ = parse(path)
            if (cell, chunk) not in found and self.whole(path) is not None:
                found.add((cell, chunk))
        return found

    def files(self, cell: int | None = None, chunk: int | None = None) -> Iterator[Path]:
        """Files of parts, of one cell and chunk where they are given, whole or not."""
        cells = "*" if cell is None else f"{cell:05d}"
        chunks = "*" if chunk is None else f"{chunk:06d}"
        for path in sorted(self.folder.glob(f"cell{cells}-chunk{chunks}-*.parquet")):
            if PART.match(path.name):
                yield path

    def whole(self, path: Path) -> bytes | None:
        """The bytes of a file; None, and the file set aside as `*.damaged`, if they are not those
        that were written."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None  # another process has set it aside
        if checksum(content) == parse(path)[2]:
            return content
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.rename(path.with_name(path.name + ".damaged"))
        return None


def parse(path: Path) -> tuple[int, int, str]:
    """Cell, chunk and checksum that the name of a part says."""
    match = PART.match(path.name)
    assert match is not None
    return int(match[1]), int(match[2]), match[3]


def unpack(content: bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and notes of the bytes of a part."""
    table = pq.read_table(pa.BufferReader(content))
    return table.to_pandas(), json.loads(table.schema.metadata[NOTES])


def checksum(content: bytes) -> str:
    """128 bits of SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, whatever the order of its entries."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def check_writable(folder: Path) -> None:
    """Raise `OSError` for a folder that takes no file, before anything is computed."""
    probe = folder / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        raise OSError(
            error.errno,
            f"no file can be written to {folder} ({error.strerror}); choose another folder or make "
            "room",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def check_empty(folder: Path) -> None:
    """Raise `ValueError` for a folder of other things, in which results would get lost."""
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if names and MANIFEST not in names:
        raise ValueError(
            f"{folder} holds {names[0]!r} and no {MANIFEST}: it is no store of results; choose an "
            "empty folder."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a store says: format, configuration, facts.

    **Raises:** `FileNotFoundError` where there is none, `ValueError` for another file.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: it is no store of results.")
    try:
        stored = json.loads(manifest.read_bytes())
        theirs, version, digest = (stored[name] for name in ("config", "format", "config_hash"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{manifest} is no manifest of a store: {error}.") from error
    if version != FORMAT:
        raise ValueError(f"{manifest} has format {version}, this version reads {FORMAT}.")
    if not isinstance(theirs, dict) or digest != config_hash(theirs):
        raise ValueError(f"{manifest} is damaged: its checksum does not fit its configuration.")
    if not isinstance(stored.get("facts"), dict):
        raise ValueError(f"{manifest} is damaged: it has no facts.")
    return stored


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `ValueError`, naming what differs, for a folder of another configuration."""
    theirs = read_manifest(folder)["config"]
    if theirs == dict(config) or config_hash(theirs) == config_hash(config):  # NaN is not itself
        return
    names = sorted(set(theirs) | set(config))
    odd = [
        name
        for name in names
        if (name in theirs) != (name in config) or theirs.get(name) != config.get(name)
    ]
    own = theirs.get(odd[0], "nothing"), config.get(odd[0], "nothing")
    first, there, now = difference(*own, odd[0])
    raise ValueError(
        f"{folder} holds results of another configuration: {', '.join(odd)} differ "
        f"({first}: {reprlib.repr(there)} there, {reprlib.repr(now)} now). Use another folder."
    )
