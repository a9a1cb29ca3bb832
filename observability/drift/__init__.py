"""Drift: do recent runs still look like the reference, and does the model still answer fixed prompts alike?

statistics.py   distances and tests (pure): PSI with bootstrap bands, KS, chi-square, proportions, MMD, correction
features.py     what a run's feature row holds; reading rows from a database or JSONL
comparison.py   reference against window: a verdict for each feature (pure)
probe.py        fixed prompts over HTTP, their answers, the certificate's end
report.py       the page with plots
job.py          one run of all that, and the loop with its metrics
"""
