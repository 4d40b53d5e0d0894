"""Imported first by scripts of jobs with a model: the garbage collector rests until the libraries are there.

Their million objects stay until the end; to look at them again and again takes a fifth of the time of a job's start.
`job.open_model` wakes it up, to look at new ones alone; a job that only describes a model ends without.
"""

import gc

gc.disable()
