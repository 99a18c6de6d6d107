"""Export targets, the host runtimes that execute an artifact on this machine, and the command on top of them."""
