"""The explorer: a web page to ask by hand and to look at answers, over the public API and nothing else.

What it shows, its scripts ask the API for, as any client does, with the reader's own key; the page itself knows nothing
of the catalog. Nothing is built: `static` is what browsers get, and holds the one library that is not ours, uPlot.
"""
