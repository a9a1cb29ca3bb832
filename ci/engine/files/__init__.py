"""Files that are known here, and file systems as expressions; nothing in this package builds or runs anything.

`tree` is a folder in memory, `fs` what a container's files are made of; `host` reads folders of this machine, `export`
writes them, `archive` reads images.
"""
