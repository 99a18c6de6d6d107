"""What is found in a traced stage before it is lowered, so that less is computed."""
