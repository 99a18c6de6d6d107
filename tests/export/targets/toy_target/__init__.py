"""A target in one folder: `test_toy_target.py` registers it with one row."""
