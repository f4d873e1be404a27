"""Several comparisons of the same arms as one. Rooms, lowest first; a room imports only those above it:

declare   a command line or a file -> cells, each with its arms
family    the record over all cells: cells.json
words     what an answer is called
answer    from the scores of all cells to what may be said in general
pictures  the forest plot, and scores over a sweep
page      report.html, report.md, results.csv over all cells
overview  all comparisons of a project, and reports drawn again
"""
