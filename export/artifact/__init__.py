"""A folder from parts: the manifest, the self-test, publishing."""
