"""Artifacts as parts of an app."""
