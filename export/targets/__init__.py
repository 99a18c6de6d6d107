"""Export targets, one module for each."""
