"""Targets: the registry, the host contract, and one folder for each target with everything of it."""
