"""Device, precision, memory plan and compilation."""
