"""Charts: the figures of runs as data. `templates/charts.html` draws them as SVG and as tables."""
