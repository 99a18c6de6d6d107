"""Which KV policy and which scales a model's cache takes, by measurement."""
