"""Bad input for readers of files: whole files changed at random, by a seed."""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable

from jaxfc.serialisation import DIGEST_SIZE, LENGTH_SIZE, MAGIC, PREFIX_SIZE

# What files of this kind get wrong, and what programs stumble over.
TOKENS = [
    *("nan", "NaN", "inf", "-inf", "1e999", "-0", "1e-320", "0x1F", "1_000", "True", "null", "''"),
    *(
        "9" * 25,
        "9" * 400,
        "9" * 5000,
        "-" + "9" * 30,
        "1.5",
        "1,5",
        "½",
        "٣",
        "一",
        "\u2212" + "1",
    ),
    *("0000-01-01", "9999-12-31", "2005-02-30", "99999Q1", "0000Q1", "9999Q4", "1/1/1", "NaT"),
    *(
        ",",
        ",,,,",
        ";",
        "\t",
        "|",
        '"',
        '"a,b',
        "'",
        "\\",
        "#",
        "=",
        "==",
        "[",
        "]",
        "{",
        "}",
        "[[",
    ),
    *("\n", "\r", "\r\n", "\n\n\n", "\x00", "\x1a", "\x0b", "\u2028", "\ufeff", "\ud7ff", "\x85"),
    *("[" * 3000, "{" * 300, "[[1]]", '{"a":', "a.b.c=1\n", "[grid]\n", "[[grid]]\n", "inf", '"""'),
    *("sasdate", "date", "Transform:", "2005Q1", "<script>", "../../etc/passwd", "$(ls)", "%s%n"),
]
OTHERS = (
    b"",
    b"\n",
    b"\x00",
    b"\x1f\x8b",
    b"PAR1",
    b"PAR1PAR1",
    b"PK\x03\x04",
    b"\xd0\xcf\x11\xe0",
    b"JAXFCFIT",
    b"\x93NUMPY",
    b"\x80\x04\x95\x00",  # the beginning of a pickle
    b"\xff\xfe" + "date,a\n".encode("utf-16-le"),
    b"null",
    b"[]",
    b"{}",
)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(content) + 1), rng.choice((1, 4, 16, 64))
    return content[:start] + rng.randbytes(size) + content[start + size :]


def removed(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 8, 100)) :]


def repeated(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    part = content[start : start + rng.choice((1, 8, 64, 400))]
    return content[:start] + part * rng.choice((2, 3, 10)) + content[start:]


def inserted(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice(TOKENS).encode() + content[start:]


def another_cell(content: bytes, rng: random.Random) -> bytes:
    """One number or word replaced."""
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return inserted(content, rng)
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(TOKENS).encode() + content[word.end() :]


def other_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines left out, twice, or in another order."""
    lines = content.splitlines(keepends=True) or [b""]
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 1:
        lines.insert(i, lines[j])
    elif how == 2:
        del lines[min(i, j) : max(i, j)]
    else:
        lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)] + b"\n"
    return b"".join(lines)


def another_file(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((*OTHERS, rng.randbytes(rng.randrange(200)))) + rng.choice((b"", content))


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut,
    flipped,
    overwritten,
    removed,
    repeated,
    inserted,
    another_cell,
    another_cell,
    other_lines,
    another_file,
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One change of the file, or several; of a gzipped file mostly of what it holds."""
    if content.startswith(b"\x1f\x8b") and rng.random() < 0.6:
        return gzip.compress(damaged(gzip.decompress(content), rng), 1, mtime=0)
    if content.startswith(MAGIC) and rng.random() < 0.7:
        return forged(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(CHANGES)(content, rng)
    return content


def forged(content: bytes, rng: random.Random) -> bytes:
    """A saved model with another header or other arrays, and the checksum that fits."""
    rest = content[len(MAGIC) + DIGEST_SIZE :]
    end = LENGTH_SIZE + int.from_bytes(rest[:LENGTH_SIZE], "big")
    header, body = rest[LENGTH_SIZE:end], rest[end:]
    how = rng.randrange(4)
    if how == 0:
        body = rng.choice(CHANGES)(body, rng)
    elif how == 1:
        header = rng.choice(CHANGES)(header, rng)
    else:
        header = json.dumps(another_tree(json.loads(header), rng)).encode()
    length = len(header) if rng.random() < 0.95 else rng.randrange(2**63)
    rest = length.to_bytes(LENGTH_SIZE, "big") + header + body
    assert PREFIX_SIZE == len(MAGIC) + DIGEST_SIZE + LENGTH_SIZE
    return MAGIC + hashlib.sha256(rest).digest() + rest


LEAVES = (None, True, -1, 0, 2**70, 1.5, "", "x", "jaxfc:Panel", "os:system", [], {}, [[]], {"": 0})
TAGS = ("array", "class", "fields", "tuple", "float", "enumeration", "codes", "names", "shape")


def another_tree(tree: object, rng: random.Random) -> object:
    """A JSON value with one part, at any depth, replaced, renamed or taken away."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        how = rng.random()
        if how < 0.75:
            return {**tree, key: another_tree(tree[key], rng)}
        if how < 0.85:
            return {name: value for name, value in tree.items() if name != key}
        return {**tree, rng.choice(TAGS): tree[key]}
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        place = rng.randrange(len(tree))
        if rng.random() < 0.8:
            return [*tree[:place], another_tree(tree[place], rng), *tree[place + 1 :]]
        return tree[:place] + tree[place + 1 :]
    if isinstance(tree, str) and ":" in tree and rng.random() < 0.5:
        module, _, name = tree.partition(":")
        other = ("jaxfc.cli:main", "jaxfc.factors.em:EM", f"{module}:x", f"os:{name}", "a:b:c")
        return rng.choice(other)
    return rng.choice(LEAVES)
