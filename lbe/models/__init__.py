"""The model and its weights in other formats."""
