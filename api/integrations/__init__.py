"""Retrievers for other frameworks, over a server's address and key. Each is an extra: `pip install 'rag[NAME]'`."""
