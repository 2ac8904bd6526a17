"""From a model and a task to a trained state: optimiser, pure steps, mesh, checkpoints."""
