"""The pages for maintainers: the matrix, its cells, boxlite's wrong diagnoses, and the runs."""
