"""``mmclipdis doctor``: what is installed, what is found, what is wrong and how to mend it.

It also runs where ``import mmclipdis`` fails: its modules import what they look at when they look.
"""
