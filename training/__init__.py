"""Training of the embedded model: corpus, optimisers, trainer, evaluation. Nothing of the repository imports it."""
