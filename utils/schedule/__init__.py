"""Rates from the batch number, and the plan of a run. Rooms, lowest first; a room imports only those above it:

curves    one quantity over a run: warm-up x decay
rates     every rate of every group at batch ni
gallery   every warm-up and decay in one picture
plan      what a run is going to do
past      what runs of different length have alike
warn      what a user should know of a plan
describe  a plan in words and as a table
draw      a plan as a picture
extend    the run that a longer one goes on from
preview   train.py --plan, and the plan of a real run
"""
