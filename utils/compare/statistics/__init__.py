"""From paired scores to a verdict; no input, no output. Rooms, lowest first; a room imports only those above it:

paired   intervals, tests and power of paired differences
pictures the interval over the pictures of val as well
folds    the same over folds, whose models share pictures
pooled   the same over several data sets
sweep    the same over the values of one key
looks    what each look may claim, and how many seeds are worth their time
verdict  the sentence
"""
