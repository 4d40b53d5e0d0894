"""Everything that knows of jobs: which cells they compute, what they need, how they run and what they record.

This is the room between Snakemake and the library. Other rooms compute without knowing that a job called them. It may
use every room.
"""
