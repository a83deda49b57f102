"""What each atom and residue adds to a prediction -> pages and files."""
