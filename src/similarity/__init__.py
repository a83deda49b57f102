"""Sequences and ligands -> how alike complexes are, clusters, splits and applicability."""
