"""What models ask of the arguments of their verbs: a key where they draw, values of single rows."""

from jaxfc.typing import PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows


def required_key(key: PRNGKeyArray | None, what: str) -> PRNGKeyArray:
    """`key`, or `ValueError` if there is none; `what` says why it is needed."""
    if key is None:
        raise ValueError(f"{what}: pass key=jax.random.key(...).")
    return key


def refuse_sums(aggregation: AggregationRows | None, reader: str) -> None:
    """Raise `ValueError` for sums and averages over several rows; `reader` is who cannot read
    them, e.g. the name of the model."""
    if aggregation is not None:
        raise ValueError(
            f"{reader} reads every value as that of its own row; the panel has sums or averages "
            "over several rows. Select the other series or bring them to one frequency."
        )
