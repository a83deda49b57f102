"""Graphs on disk and in batches: cache, epoch order, augmentation, demo set."""
