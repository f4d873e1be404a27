"""Seven steps before a long run. Rooms, lowest first; a room imports only those above it:

lecture  what the steps say
curves   what learning curves say
transfer what to try next
notes    what has been found so far: check.json
lab      what the steps work with
tries    the steps that are made in the process itself
trials   runs within a budget
runs     the steps that are made by runs
page     the page
main     the command
"""
