"""The memory of single complexes beside the network."""
