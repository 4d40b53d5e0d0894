"""Files that outlive a job: the columns of each stage, whole files, unfinished parts, and where a number comes from.

Uses the vocabulary alone.
"""
