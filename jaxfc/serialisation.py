"""What was fitted or learned, on disk: a JSON header that rebuilds the tree, arrays, a checksum.

A file is, in this order,

    8 bytes   JAXFCFIT
    32 bytes  SHA-256 of everything that follows
    8 bytes   length of the header, big-endian
    header    JSON: format, version, library versions, and the tree of classes and fields
    body      the arrays of the tree in the order of their numbers (equinox leaves, no pickle)

Reading runs no code that the file names, except the import of modules of jaxfc itself: classes are
restricted to this package and rebuilt field by field.
"""

import hashlib
import io
import json
import os
import secrets
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, overload

import equinox as eqx
import jax

from jaxfc.model import Fitted, Model
from jaxfc.serialisation_tree import DECODING_ERRORS, decode, encode

MAGIC = b"JAXFCFIT"
FORMAT = "jaxfc fitted model"
FORMAT_VERSION = 1
DIGEST_SIZE = hashlib.sha256().digest_size
LENGTH_SIZE = 8
PREFIX_SIZE = len(MAGIC) + DIGEST_SIZE + LENGTH_SIZE

PathLike = str | os.PathLike[str]
Kind = TypeVar("Kind", bound=eqx.Module)


def save(fitted: eqx.Module, path: PathLike) -> None:
    """Write a fitted model, or a learned policy, or a batch of them to one file, bit for bit.

    The file appears under its name only when it is complete; one that stood there is replaced.

    **Raises:** `TypeError` if `fitted` is no module or only the configuration of a model, or holds
    something that has no safe form on disk: a function, a random key, an object of another package,
    a traced value.
    """
    if not isinstance(fitted, eqx.Module) or isinstance(fitted, Model):
        raise TypeError(
            f"save takes a fitted model or a learned policy, got {type(fitted).__name__}."
        )
    arrays: list[Any] = []
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "libraries": {name: version(name) for name in ("jaxfc", "jax", "equinox")},
        "tree": encode(fitted, arrays, type(fitted).__name__),
    }
    text = json.dumps(header, allow_nan=False).encode()
    body = io.BytesIO()
    eqx.tree_serialise_leaves(body, arrays)
    content = len(text).to_bytes(LENGTH_SIZE, "big") + text + body.getvalue()
    write_atomically(Path(path), MAGIC + hashlib.sha256(content).digest() + content)


@overload
def load(path: PathLike) -> Fitted: ...
@overload
def load(path: PathLike, kind: type[Kind]) -> Kind: ...
def load(path: PathLike, kind: type[eqx.Module] = Fitted) -> eqx.Module:
    """What `save` wrote: a fitted model, or the `kind` asked for, e.g. `FeedbackPolicy`.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError` if it is no file of this
    format, is damaged, has another format version, holds something else than a `kind`, names a
    class that this jaxfc does not have, or holds numbers in a precision that JAX has not switched
    on.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise ValueError(f"{str(path)!r} is no file of a fitted model written by jaxfc.save.")
    digest, rest = content[len(MAGIC) : PREFIX_SIZE - LENGTH_SIZE], content[len(MAGIC) :]
    rest = rest[DIGEST_SIZE:]
    if hashlib.sha256(rest).digest() != digest:
        raise ValueError(
            f"{str(path)!r} is damaged: its checksum does not match its content. Copy it again "
            "from where it was written, or estimate anew."
        )
    end = LENGTH_SIZE + int.from_bytes(rest[:LENGTH_SIZE], "big")
    header = read_header(rest[LENGTH_SIZE:end], str(path))
    try:
        fitted = decode(header["tree"], lambda like: read_arrays(rest[end:], like))
    except DECODING_ERRORS as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(fitted, kind):
        held, wanted = type(fitted).__name__, kind.__name__
        wanted = "fitted model" if kind is Fitted else wanted
        advice = f"; name the class: load(path, {held})" if isinstance(fitted, eqx.Module) else ""
        raise ValueError(f"{str(path)!r} holds a {held}, not a {wanted}{advice}.")
    return fitted


def read_header(text: bytes, path: str) -> dict[str, Any]:
    """The header, of this format and version."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:  # also undecodable bytes
        raise ValueError(f"{path!r} has a header that is not JSON.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or "tree" not in header:
        raise ValueError(f"{path!r} is no file of a fitted model written by jaxfc.save.")
    if header.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path!r} has format version {header.get('version')}, this jaxfc reads version "
            f"{FORMAT_VERSION}; it was written with {header.get('libraries')}."
        )
    return header


def read_arrays(body: bytes, like: list[Any]) -> list[Any]:
    """The arrays of the body, of the shapes and dtypes that the header promises."""
    stream = io.BytesIO(body)
    try:
        arrays = eqx.tree_deserialise_leaves(stream, like)
    except (RuntimeError, EOFError, OSError, MemoryError, ValueError) as error:
        raise ValueError("its arrays are not those its header describes.") from error
    if stream.read(1):
        raise ValueError("more follows its last array.")
    return jax.tree.leaves(arrays)


def write_atomically(path: Path, content: bytes, *, replace: bool = True) -> None:
    """All of the file or nothing: a temporary neighbour, flushed to the disk, then renamed.

    **Raises:** `FileExistsError` if the file is there and not to be replaced; `OSError` (full
    disk), with nothing left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    # Not `mkstemp`, whose files nobody but their owner may read.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # in one step, and not where the name is taken
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
