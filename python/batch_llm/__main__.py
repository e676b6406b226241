"""``python -m batch_llm``."""

from .cli.main import main

if __name__ == "__main__":
    main()
