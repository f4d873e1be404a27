"""The page on a comparison, its pictures and its words. Rooms, lowest first; a room imports only those above it:

facts     what a folder of a comparison tells
words     numbers and facts as words
figure    what the pictures have in common
tables    the tables of the page and of report.md
batches   pictures of the first batches
curves    pictures over epochs
markdown  report.md
pairs     pictures of the pairs
page      report.html, report.md, results.csv
"""
