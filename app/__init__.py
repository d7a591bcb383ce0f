"""The web service and its catalog: SQL and HTTP around `engine`, and no tensors.

    settings    what can be configured            names       what may be called how
    actors      who does something                secret      keyed hashes
    db          the database and its transaction  kept        connections for what every request reads and writes
    tables      SQL tables                        catalog     all queries: datasets, subsets, sketches, keys, audit
    predictor   the engine seen from the web      serving     which version answers, and what is loaded for that
    lookup      from names in a question to a version and units, from memory where nothing can have moved
    queues      the threads that questions are answered in: quick ones, and those that compute
    recorder    records of answers, written before they are sent
    access      who may ask                       guard       the way into every operation
    in_time     how long a request may take
    parts       all that questions need           answering   the steps that kinds of questions share
    building    from a dataset to a registered sketch version
    truth       retraining in a process           verifier    answers verified in the background
    pinning     subsets whose retrained models are kept with a sketch version
    leftovers   artifacts that no version names   backup      a copy of all of it
    errors      what is refused, with its status  problems    how a refusal is answered (RFC 9457)
    schemas     bodies of requests and answers    routes      one file a resource
    deps        what routes depend on             openapi     how operations declare their errors
    direct      a route that reads its body and writes its answer once
    body_limit  how large and slow a body may be  connections slow clients, and too many
    metrics     what is counted and timed         observation what is seen of every request
    logs        the log                           main        puts the application together
    server      runs it                           client      the same operations from elsewhere
    commands    the command line, one file a resource

The path of a question: the guard admits it, a route validates its body, the lookup turns names into a sketch version
and unit numbers with what the catalog says, the predictor answers, the recorder records.
"""
