"""Size, memory and speed against what a user would run instead."""
