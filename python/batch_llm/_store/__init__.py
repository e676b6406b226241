"""What a run stores and need not request again: its store, its cache, its equal requests."""

from .codec import UnreadableRecordError, read, result_of
from .run_store import Answer, Keeping

__all__ = ["Answer", "Keeping", "UnreadableRecordError", "read", "result_of"]
