"""Predictions and labels -> metrics with intervals, baselines, calibration, CASF and the report."""
