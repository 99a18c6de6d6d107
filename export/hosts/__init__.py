"""Host runtimes: each executes one kind of artifact on this machine, so that it can be checked here."""
