"""The report of a sweep, made from its folders alone; `python -m fmnist_pl.report` writes it."""
