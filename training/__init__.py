"""Training of the embedded model: corpus, optimisers, trainer, evaluation. Nothing else of the repository imports it."""
