"""A simulated provider, and one Ray cluster of two nodes for all tests.

They need an environment with the engines, ``make test-engines``.
"""

from __future__ import annotations

import os
import warnings

import pytest

from batch_llm.testing import SimulatedProvider


@pytest.fixture(scope="session")
def cluster():
    """Two nodes on this machine."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 4, "object_store_memory": 150 << 20}
        # A dead node is noticed at once.
        health = {f"health_check_{name}": value for name, value in (("period_ms", 500), ("failure_threshold", 3))}
        head = {**node, "include_dashboard": False, "_system_config": health}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def provider():
    """A provider that counts how often each question came."""
    with SimulatedProvider(count_questions=True) as provider:
        yield provider
