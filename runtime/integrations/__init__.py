"""Adapters: embgemma as the embedder of other packages. A module here is imported only by those who use it.

The page README.md beside this file has an example of each.
"""
