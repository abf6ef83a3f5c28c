"""Federated averaging: clients that share parameters and never data.

    theta_k <- `num_local_steps` steps of client k from theta on its own loss
    theta   <- sum_k n_k theta_k / sum_k n_k

Clients of a device are one `vmap`; devices exchange weighted sums of parameters alone (`shard_map`,
`pmean`). With one local step of gradient descent this is gradient descent on the loss of all data,
sum_k n_k loss_k / sum_k n_k; with more it is not: clients drift towards their own minima.

Source: McMahan, Moore, Ramage, Hampson and Aguera y Arcas (2017), algorithm 1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxfc.batching import count_cases
from jaxfc.counts import check_counts
from jaxfc.running.replicate import Device
from jaxfc.typing import Array, Float, PyTree

Loss = Callable[[PyTree, PyTree], Array]
AXIS = "clients"


class FederatedFit(NamedTuple):
    """The parameters, and before each round the loss of all clients, sum n_k loss_k / sum n_k."""

    parameters: PyTree
    path: Float[Array, " rounds"]


def federated_averaging(
    loss: Loss,
    parameters: PyTree,
    clients: PyTree,
    sizes: Float[Array, " clients"] | Float[np.ndarray, " clients"],
    *,
    optimiser: optax.GradientTransformation,
    num_rounds: int,
    num_local_steps: int = 1,
    devices: Sequence[Device] | None = None,
) -> FederatedFit:
    """Trains shared parameters over clients for `num_rounds` rounds.

    **Arguments:** `loss(parameters, data)` is the mean loss of one client's data; `clients` their
    data, led by the clients in every leaf (mask rows where they have different numbers); `sizes`
    n_k, usually rows: a client of size 0 takes no part. Leaves of `parameters` that are no floats
    stay. `optimiser` starts afresh in every round on every client. `devices`: default all local.

    **Raises:** `ValueError` for counts below 1, sizes that are negative, all zero, or not one for
    each client.
    """
    check_counts(num_rounds=num_rounds, num_local_steps=num_local_steps)
    weights = check_sizes(sizes, count_cases(clients))
    places = tuple(jax.local_devices() if devices is None else devices)
    extra = -len(weights) % len(places)
    # Every device has as many clients: copies of the last that weigh nothing.
    rows = np.minimum(np.arange(len(weights) + extra), len(weights) - 1)
    clients = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], clients)
    weights = np.pad(weights, (0, extra)) / weights.sum()
    floats, rest = eqx.partition(parameters, eqx.is_inexact_array)
    weights = jnp.asarray(weights, jnp.result_type(*jax.tree.leaves(floats)))
    ended, path = run_rounds(
        loss, floats, rest, clients, weights, optimiser, num_rounds, num_local_steps, places
    )
    return FederatedFit(eqx.combine(ended, rest), path)


@eqx.filter_jit
def run_rounds(
    loss: Loss,
    floats: PyTree,
    rest: PyTree,
    clients: PyTree,
    weights: Float[Array, " clients"],
    optimiser: optax.GradientTransformation,
    num_rounds: int,
    num_local_steps: int,
    places: tuple[Device, ...],
) -> tuple[PyTree, Float[Array, " rounds"]]:
    """All rounds in one program over the devices."""
    own, shared = PartitionSpec(AXIS), PartitionSpec()

    def rounds(floats: PyTree, clients: PyTree, weights: Array) -> tuple[PyTree, Array]:
        def one(floats: PyTree, _: None) -> tuple[PyTree, Array]:
            return federated_round(
                lambda floats, data: loss(eqx.combine(floats, rest), data),
                floats,
                clients,
                weights,
                optimiser=optimiser,
                num_local_steps=num_local_steps,
            )

        return jax.lax.scan(one, floats, None, length=num_rounds)

    spread = jax.shard_map(
        rounds,
        mesh=Mesh(np.array(places), (AXIS,)),
        in_specs=(shared, own, own),
        out_specs=(shared, shared),
        check_vma=False,
    )
    return spread(floats, clients, weights)


def federated_round(
    loss: Loss,
    parameters: PyTree,
    clients: PyTree,
    weights: Float[Array, " clients"],
    *,
    optimiser: optax.GradientTransformation,
    num_local_steps: int,
) -> tuple[PyTree, Float[Array, ""]]:
    """One round on the clients of this device, inside a `shard_map` over the axis "clients": new
    parameters, the same on all devices, and the loss before."""

    def one_client(data: PyTree) -> tuple[PyTree, Array]:
        def step(state: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], Array]:
            local, memory = state
            value, slopes = jax.value_and_grad(loss)(local, data)
            change, memory = optimiser.update(slopes, memory, local)
            return (optax.apply_updates(local, change), memory), value  # pyright: ignore

        start = parameters, optimiser.init(parameters)
        (local, _), values = jax.lax.scan(step, start, None, length=num_local_steps)
        return local, values[0]

    moved, values = jax.vmap(one_client)(clients)
    # The mean over devices of their sums, with weights that are as many times too large.
    scaled = weights * jax.lax.axis_size(AXIS)

    def averaged(leaves: Array) -> Array:
        # A client without data may have a loss that is no number: it takes no part.
        present = (weights > 0.0).reshape(-1, *(1,) * (leaves.ndim - 1))
        own = jnp.tensordot(scaled, jnp.where(present, leaves, 0.0), axes=1, precision="highest")
        return jax.lax.pmean(own, AXIS)

    return jax.tree.map(averaged, moved), averaged(values)


def check_sizes(
    sizes: Float[Array, " clients"] | Float[np.ndarray, " clients"], num_clients: int
) -> np.ndarray:
    """The sizes on the host, if they are weights of so many clients."""
    found = np.asarray(sizes, dtype=float)
    if found.shape != (num_clients,):
        raise ValueError(f"sizes of shape {found.shape} for {num_clients} clients; give one each.")
    if not np.all(np.isfinite(found)) or np.any(found < 0.0) or not found.sum() > 0.0:
        raise ValueError(
            f"sizes must be finite, not negative and not all zero, got {found.tolist()}."
        )
    return found
