"""A local Baidu: the faceprint interfaces, the H5 page and its media, on loopback, for tests and demos.

It shares no code with the rest of the package, so that a mistake of the client is not repeated here.
:mod:`django_faceprint.sandbox.core` lists its parts and their addresses.
"""
