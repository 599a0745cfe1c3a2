"""One list of checks per socket, run on every implementation, and by `tests/liars` proved to bite."""
