"""What all strategies need: the base class, their life cycle in a run, the table of providers, token counts.

Used by the modules of strategies, by runs, pipelines and stores.
"""

from .arguments import Rebuildable, stores_arguments
from .lifecycle import STRATEGY_CLEANUP_TIMEOUT, KnownStrategies, KnownStrategy, RunStrategies, clean_up_quietly
from .providers import (
    BATCH_PATHS,
    SIMULATED,
    SIMULATED_MARK,
    ApiKey,
    asks,
    check_variable,
    endpoint,
    environment,
    is_model,
    row_of,
    simulated_url,
    simulators,
    table,
    without_provider,
)
from .quota_scopes import holder, scope_of, shared_name_of
from .strategy import LLMCallStrategy
from .structured_output import problem_of, shape_of
from .token_usage import (
    CORRECTION,
    add,
    attach_usage,
    count,
    counts_of,
    is_usage,
    paid_now,
    read_counts,
    usage_of_failure,
)

__all__ = [
    "BATCH_PATHS",
    "CORRECTION",
    "SIMULATED",
    "SIMULATED_MARK",
    "STRATEGY_CLEANUP_TIMEOUT",
    "ApiKey",
    "KnownStrategies",
    "KnownStrategy",
    "LLMCallStrategy",
    "Rebuildable",
    "RunStrategies",
    "add",
    "asks",
    "attach_usage",
    "check_variable",
    "clean_up_quietly",
    "count",
    "counts_of",
    "endpoint",
    "environment",
    "holder",
    "is_model",
    "is_usage",
    "paid_now",
    "problem_of",
    "read_counts",
    "row_of",
    "scope_of",
    "shape_of",
    "shared_name_of",
    "simulated_url",
    "simulators",
    "stores_arguments",
    "table",
    "usage_of_failure",
    "without_provider",
]
