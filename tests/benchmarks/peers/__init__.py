"""This project and its peers side by side: `python -m tests.benchmarks.peers`."""
