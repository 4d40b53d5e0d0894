"""What knows that jobs exist: their cells, resources and fingerprints, their logs and records, GPUs, and Slurm.

May use every room.
"""
