"""A study: runs that belong together, their order, folder and scores."""
