"""How good retrieval, contexts and answers are, and what a difference is worth. Pure: nothing here opens anything."""
