"""The web service and its catalog: SQL and HTTP around `engine`, and no tensors.

    settings    what can be configured            names       what may be called how
    db          the database and its transaction  tables      SQL tables
    catalog     all queries: datasets, subsets, sketches, deletion sets
    predictor   the engine seen from the web      serving     from catalog rows to resident artifacts
    lookup      from names in a question to a version and units, from memory where nothing can have moved
    queues      the threads that questions are answered in: quick ones, and those that compute
    building    from a dataset to a registered sketch version
    truth       retraining in a process           verifier    answers verified in the background
    pinning     subsets whose retrained models are kept with a sketch version
    errors      what is refused, with its status  problems    how a refusal is answered (RFC 9457)
    schemas     bodies of requests and answers    routes      one file a resource
    deps        what routes depend on             openapi     how operations declare their errors
    direct      a route that reads its body and writes its answer once
    body_limit  how large a body may be           main        puts the application together
    commands    the command line, one file a resource

The path of a question: a route validates its body, the lookup turns names into a sketch version and unit numbers with
what the catalog says, the predictor answers.
"""
