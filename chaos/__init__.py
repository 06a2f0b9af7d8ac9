"""The fault suite: the whole engine in real processes, everything around it failing, the sandbox as judge.

``python -m chaos`` (``make chaos``) makes two runs and ends with exit code 0 only if both end as they must:
in the order of deadlines nothing is lost, first come, first served something is.
"""
