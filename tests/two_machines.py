"""A Ray cluster of two machines on this one, for programs that kill the second."""

import ray
from ray.cluster_utils import Cluster


def connected():
    """The cluster, that this process is connected to, and its second machine; one CPU each."""
    memory = {"object_store_memory": 80_000_000}
    health = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000}
    first = {"num_cpus": 1, "_system_config": health, **memory}
    machines = Cluster(initialize_head=True, head_node_args=first)
    second = machines.add_node(num_cpus=1, **memory)
    ray.init(address=machines.address, log_to_driver=False)
    return machines, second
