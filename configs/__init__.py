"""The experiments: `lbe.configs`, for configs that lie elsewhere, too."""
