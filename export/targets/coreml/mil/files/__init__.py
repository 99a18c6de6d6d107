"""A package on disk: its folder, its protobuf, its weight files."""
