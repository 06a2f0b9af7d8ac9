"""Attacks on the running product, from outside and from below: what each must not reach.

Parts of the defence have tests of their own beside the code: ranges and types of files in
``tests/test_media_response.py``, URLs and addresses of media in ``tests/client/test_download.py``, hostile
answers in ``tests/engine/test_hostile_answers.py``.
"""
