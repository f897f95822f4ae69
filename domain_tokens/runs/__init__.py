"""What every command shares: its parser and exit codes, configs, run folders and their names, files, provenance, the
schemas of results, processes and signals, and text for terminals.

May import the common module only, and never torch at the top of a module.
"""
