"""The HTTP interface, one file a resource: a route validates, asks the catalog and the predictor, and answers."""
