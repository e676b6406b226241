"""The command line: ``batch-llm``, or ``python -m batch_llm``. Private: import nothing from here."""
