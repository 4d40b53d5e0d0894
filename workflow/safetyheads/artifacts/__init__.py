"""Files that outlive a job: their paths and columns, how they are written, and the record of how each was made.

Uses the vocabulary alone.
"""
