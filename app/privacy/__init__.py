"""Requests of privacy backends: one job, and what each peer speaks as a thin adapter of it.

    requests.py      the job: taken, cancelled, found
    work.py          what is done for it, step by step: predict, verify, file, forget, tell
    reporting.py     whose part of which dataset it is about, and what is measured
    worker.py        the threads that do it, in the service or in `neverseen worker`
    identities.py    whose data: keyed hashes, never the identities themselves
    evidence.py      what is filed: results.py, words.py; signed by proof.py with signing_key.py, shown by page.py
    connections.py   peers: secrets, credentials; options.py, certificates.py
    figures.py       how requests and messages do, for the metrics
    notices.py       every change of a request as messages to whom it concerns; messages.py
    deliverer.py     sends them, at least once; attempts.py says what an answer comes to; webhooks.py signs
    outgoing.py      keeps it from calling what it mustn't
    fides.py opendsr.py transcend.py ketch.py events.py    what each protocol says

A request says who is asked about by identities. They are hashed with a key as they arrive, and from then on nothing
here knows them in clear. Nor does anything here know HTTP routes: these are `app.routes`' part.
"""
