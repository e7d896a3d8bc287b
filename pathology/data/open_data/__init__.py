"""Public data sets as they lie on a disk: what they hold, may be used for, and are known to lack.

One file a set or family; :data:`pathology.data.open_data.sets.SETS` is the table of them.
"""
