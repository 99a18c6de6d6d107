"""The operators of the MIL interpreter, by family; registry.py holds their contract."""
