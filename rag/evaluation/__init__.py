"""How good retrieval, contexts and answers are, whether they stay so, and what a difference is worth. Nothing is opened
here."""
