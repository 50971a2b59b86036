"""The train step: loss, optimizer, groups of parameters."""
