"""The pieces that main.py and predict.py put together."""
