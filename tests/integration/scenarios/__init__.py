"""Policy scenarios: each folder holds settings, pods, and one file of manifests for each scenario on them.

`# open:` and `# closed:` lines in a scenario say by hand what some paths must be, so that it cannot be about nothing.
"""
