"""Files that are whole or not there, locks, workers, signals and errors; no chemistry."""
