"""Poses -> graphs -> rows of scores."""
