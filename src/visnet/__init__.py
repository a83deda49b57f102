"""The edge operation of ViSNet and its derivative, and what is kept of it and what recomputed."""
