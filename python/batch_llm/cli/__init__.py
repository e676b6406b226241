"""The command line: ``batch-llm``, or ``python -m batch_llm``. Nothing here is meant to be imported."""
