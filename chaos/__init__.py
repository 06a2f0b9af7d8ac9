"""The fault suite: the whole engine in real processes, with faults in everything around it.

``python -m chaos`` (``make chaos``) makes two runs, judged by the sandbox's ledger. Exit code 0: the run in
the order of deadlines lost nothing, and the control run, first come, first served, lost something.
"""
