"""How good answers are, and whether they stay so: pure functions over what was asked, found and said."""
