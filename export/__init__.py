"""Export: the pipeline, its rooms, and the command on top of them."""
