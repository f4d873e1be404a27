"""Pictures of figures and of pictures. Rooms, lowest first; a room imports only those above it:

figure  figures as PNG, without matplotlib's global state
sheet   boxes on pictures, and contact sheets of them
page    what every page of a report has in common
"""
