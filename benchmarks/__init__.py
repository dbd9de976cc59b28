"""`make bench`: what a decision costs, in CPU time of the server and as ratios; docs/performance.md reads the figures.

One file for each subject; `rows.py` lists them. Load comes from h2load, in processes of its own.
"""
