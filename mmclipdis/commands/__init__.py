"""The command ``mmclipdis``: one file a subcommand, none of which imports torch to be listed.

What a subcommand needs is imported by :func:`mmclipdis.commands.start.run` when it runs, behind
everything that can be said about the command line without it.
"""
