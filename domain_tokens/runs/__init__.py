"""What every command shares: parser and exit codes, configs, run folders and their names, files and their schemas,
provenance, processes and signals, text for terminals.

May import the common module only, and never torch at the top of a module.
"""
