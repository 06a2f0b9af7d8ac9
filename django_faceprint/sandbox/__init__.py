"""A local Baidu: the faceprint interfaces, the H5 page and its media, on loopback, for tests and demos.

Speaks HTTP only and shares no code with the rest of the package, so that a mistake in the client cannot agree
with itself here. See :mod:`django_faceprint.sandbox.core` for what it answers and how it is controlled.
"""
