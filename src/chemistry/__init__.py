"""Structure files -> atoms with chemical facts; the only reader of structure files."""
