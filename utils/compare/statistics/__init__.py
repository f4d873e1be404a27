"""From paired scores to a verdict; no input, no output. Rooms, lowest first; a room imports only those above it:

paired   intervals, tests and power of paired differences
looks    what each look may claim, and how many seeds are worth their time
verdict  the sentence
"""
