"""Index lines, folder layouts and a table of the user -> labels and paths."""
