"""`python -m indexing`."""

import sys

from indexing.command import run_process

if __name__ == "__main__":
    sys.exit(run_process())
