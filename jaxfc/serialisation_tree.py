"""Trees of modules as JSON: what may stand in a saved model, and how it is rebuilt.

Numbers, text and `None` stand for themselves; everything else is an object with one tag:

    {"float": hex}   {"tuple": [...]}   {"list": [...]}   {"dict": [[key, value], ...]}
    {"array": number, "shape": [...], "dtype": name, "of": "jax" or "numpy"}
    {"class": "module:Name", "fields": {...}}                        modules and named tuples
    {"enumeration": "module:Name", "names": {code: name}, "codes": array}
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

PACKAGES = ("jaxfc", "jaxfc_kernels")
# What `decode` meets in a tree that was changed by hand, besides the `ValueError` of its own.
DECODING_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


def encode(value: Any, arrays: list[Any], where: str) -> Any:
    """JSON of `value`; its arrays are appended to `arrays`. `where` names it in errors."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, jax.Array | np.ndarray):
        return encode_array(value, arrays, where)
    if is_enumeration_item(value):
        return encode_enumeration(value, arrays, where)
    if isinstance(value, eqx.Module) or is_named_tuple(type(value)):
        fields = {
            name: encode(getattr(value, name), arrays, f"{where}.{name}")
            for name in field_names(type(value))
        }
        return {"class": class_path(type(value), where), "fields": fields}
    if type(value) in (tuple, list):
        items = [encode(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if type(value) is dict:
        pairs = [
            [encode(key, arrays, where), encode(item, arrays, f"{where}[{key!r}]")]
            for key, item in value.items()
        ]
        return {"dict": pairs}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no safe form on disk; only arrays, "
        "numbers, text, containers of them and modules of jaxfc can be saved."
    )


def encode_array(value: Any, arrays: list[Any], where: str) -> dict[str, Any]:
    """The place of an array among the arrays."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{where} is a traced value; save outside jit, vmap and grad.")
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype.hasobject:
        raise TypeError(f"{where} is an array of {value.dtype}, which has no safe form on disk.")
    arrays.append(value)
    return {
        "array": len(arrays) - 1,
        "shape": list(value.shape),
        "dtype": value.dtype.name,
        "of": "jax" if isinstance(value, jax.Array) else "numpy",
    }


def is_enumeration_item(value: Any) -> bool:
    """Whether `value` is an item (or a batch of items) of an equinox enumeration."""
    return isinstance(value, eqx.Module) and hasattr(value, "_enumeration")


def encode_enumeration(value: Any, arrays: list[Any], where: str) -> dict[str, Any]:
    """Codes with their names: a code's number may differ between versions, its name not."""
    enumeration = value._enumeration
    (codes,) = jax.tree.leaves(value)
    numbers = codes_of(enumeration)
    names = {str(numbers[name]): name for name in numbers}
    used = {str(code): names[str(code)] for code in np.unique(np.asarray(codes)).tolist()}
    place = encode_array(codes, arrays, where)
    return {"enumeration": class_path(enumeration, where), "names": used, "codes": place}


def codes_of(enumeration: Any) -> dict[str, int]:
    """Number of every member by name."""
    # equinox has no public list of the names of an enumeration.
    items = enumeration._name_to_item
    return {name: int(jax.tree.leaves(item)[0]) for name, item in items.items()}


def names_of(codes: Any) -> list[str]:
    """Name of every member of a batch of one enumeration, flat (host side)."""
    names = {code: name for name, code in codes_of(codes._enumeration).items()}
    (numbers,) = jax.tree.leaves(codes)
    return [names[code] for code in np.asarray(numbers).reshape(-1).tolist()]


def is_named_tuple(kind: type) -> bool:
    """Whether a class is a named tuple."""
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def field_names(kind: Any) -> tuple[str, ...]:
    """Names of the fields of a module or named tuple, in order."""
    if is_named_tuple(kind):
        return kind._fields
    return tuple(field.name for field in dataclasses.fields(kind))


def class_path(kind: Any, where: str) -> str:
    """ "module:Name" of a class of this package."""
    path = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__.split(".")[0] not in PACKAGES:
        raise TypeError(f"{where} is a {path}, a class outside jaxfc, and cannot be saved.")
    return path


def find_class(path: Any) -> Any:
    """The class that a header names, if it is one of this package."""
    if not isinstance(path, str) or path.count(":") != 1:
        raise ValueError(f"it names no class: {path!r}.")
    module_name, name = path.split(":")
    if module_name.split(".")[0] not in PACKAGES:
        raise ValueError(f"it names the class {path!r}, which is not of jaxfc.")
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"it names the class {path!r}, which this jaxfc does not have.") from error
    if not isinstance(found, type) or found.__module__ != module_name:
        raise ValueError(f"it names {path!r}, which is no class defined there.")
    return found


def decode(tree: Any, read: Callable[[list[Any]], list[Any]]) -> Any:
    """The value that `encode` wrote; `read` gets the arrays when their shapes are known."""
    places: dict[int, Any] = {}
    collect_places(tree, places)
    if sorted(places) != list(range(len(places))):
        raise ValueError("its arrays are not numbered in order.")
    return rebuild(tree, read([places[i] for i in range(len(places))]))


def collect_places(tree: Any, places: dict[int, Any]) -> None:
    """Shape and dtype of every array in the tree, by number."""
    if isinstance(tree, list):
        for item in tree:
            collect_places(item, places)
    elif isinstance(tree, dict) and "array" in tree:
        places[tree["array"]] = array_like(tree)
    elif isinstance(tree, dict):
        for item in tree.values():
            collect_places(item, places)


def array_like(place: dict[str, Any]) -> Any:
    """An empty array, or the description of one, of the shape and dtype of a place."""
    try:
        dtype, shape = jnp.dtype(place["dtype"]), tuple(int(size) for size in place["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its header describes an array without shape or dtype.") from error
    if math.prod(shape) < 0 or dtype.hasobject:
        raise ValueError(f"its header describes an impossible array, {shape} of {dtype}.")
    if place.get("of") == "numpy":
        return np.broadcast_to(np.zeros((), dtype), shape)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"it holds {dtype} arrays, which JAX would cut to 32 bits here; call "
            "jax.config.update('jax_enable_x64', True) before loading."
        )
    return jax.ShapeDtypeStruct(shape, dtype)


def rebuild(tree: Any, arrays: list[Any]) -> Any:
    """The value of a JSON tree, arrays put in their places."""
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if isinstance(tree, dict):
        if "array" in tree:
            return arrays[tree["array"]]
        if "class" in tree and isinstance(tree.get("fields"), dict):
            return rebuild_class(tree, arrays)
        if "enumeration" in tree:
            return rebuild_enumeration(tree, arrays)
        if len(tree) == 1:
            ((tag, content),) = tree.items()
            if tag == "float" and isinstance(content, str):
                return float.fromhex(content)
            if tag in ("tuple", "list") and isinstance(content, list):
                items = [rebuild(item, arrays) for item in content]
                return tuple(items) if tag == "tuple" else items
            if tag == "dict" and isinstance(content, list):
                return {rebuild(key, arrays): rebuild(item, arrays) for key, item in content}
    raise ValueError(f"its header holds something unknown: {str(tree)[:60]!r}.")


def rebuild_class(tree: dict[str, Any], arrays: list[Any]) -> Any:
    """A module or named tuple from its fields; its constructor does not run."""
    kind = find_class(tree["class"])
    if not (issubclass(kind, eqx.Module) or is_named_tuple(kind)):
        raise ValueError(f"it names the class {tree['class']!r}, which is no module.")
    expected = field_names(kind)
    if set(tree["fields"]) != set(expected):
        raise ValueError(
            f"it has the fields {sorted(tree['fields'])} of {tree['class']!r}, where this jaxfc "
            f"has {sorted(expected)}; it was written by another version."
        )
    values = {name: rebuild(tree["fields"][name], arrays) for name in expected}
    if is_named_tuple(kind):
        return kind(**values)
    # As in unflattening a tree: converters and checks ran when the value was first built.
    module = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(module, name, value)
    return module


def rebuild_enumeration(tree: dict[str, Any], arrays: list[Any]) -> Any:
    """An item, or a batch of items, under the numbers that the names have now."""
    enumeration = find_class(tree["enumeration"])
    if not issubclass(enumeration, eqx.Enumeration):
        raise ValueError(f"it names {tree['enumeration']!r}, which is no enumeration.")
    numbers, names = codes_of(enumeration), tree.get("names", {})
    unknown = sorted(set(names.values()) - set(numbers))
    if unknown:
        raise ValueError(f"it holds the codes {unknown}, which {tree['enumeration']!r} lacks.")
    written = rebuild(tree.get("codes"), arrays)
    codes = np.asarray(written)
    current = np.full_like(codes, -1)
    for code, name in names.items():
        current[codes == int(code)] = numbers[name]
    if np.any(current < 0):
        raise ValueError(f"it holds codes of {tree['enumeration']!r} without a name.")
    item = getattr(enumeration, next(iter(numbers)))
    leaf = jnp.asarray(current) if isinstance(written, jax.Array) else current
    return jax.tree.unflatten(jax.tree.structure(item), [leaf])
