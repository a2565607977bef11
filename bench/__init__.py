"""Measurements, as figures and ratios within one run; see ``python -m bench --help``."""
