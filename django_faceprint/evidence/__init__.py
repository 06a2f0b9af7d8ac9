"""Files and answers: what is expected, stored, served, kept and erased."""
