"""What the maintainers run: the matrix, the sweep and the generated pages."""
