"""Gradients of a window, losses, the optimizer, progress, and when a state is saved."""
