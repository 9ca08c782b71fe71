"""Which settings: sweeps over recipes, and searches for each layer's sparsity."""
