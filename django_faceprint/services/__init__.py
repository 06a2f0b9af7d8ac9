"""The use cases, and the only writers of session and asset state.

``sessions`` starts verifications, ``collect`` asks Baidu and archives, ``schedule`` says whose turn
it is, ``keeping`` how long what is stored may stay, ``retention`` removes; the rest are questions. Services
never import a face (admin, API, tasks, commands): work to do later is a due time on a row.
"""
