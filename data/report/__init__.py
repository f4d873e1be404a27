"""What a dataset consists of. Rooms, lowest first; a room imports only those above it:

counts  the numbers of a split
text    the numbers as lines
advice  what to do about them
plots   figures
files   the report as files and as lines for the console
main    the command
"""
