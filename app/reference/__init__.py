"""The API's reference at `/docs`: Swagger UI as a package brings it, so that it works without a network.

A page of this origin can read what the explorer keeps, its reader's key: it runs no script that we don't vouch for.
"""
