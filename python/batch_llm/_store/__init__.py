"""What a run stores and need not request again: its store, its cache, its equal requests.

Runs look items up before they start them, pipelines hand results over; ``inspection`` reads stores.
"""

from .codec import UnreadableRecordError, read, result_of
from .run_store import Answer, RunStore, log_ignored

__all__ = ["Answer", "RunStore", "UnreadableRecordError", "log_ignored", "read", "result_of"]
