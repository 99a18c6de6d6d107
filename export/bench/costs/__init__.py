"""What one token costs: bytes that are read, and time of the kernels that read them."""
