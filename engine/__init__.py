"""Neverseen's engine: what would the model be without these documents?

The map, in the order in which things use each other:

    errors          everything the engine refuses
    documents       documents, units, vocabulary, import
    jet             the ring: truncated polynomials with a shared real constant term
    model           microgpt in the ring, forward and reverse
    train           Adam in the ring; one pass gives the jets of the trained parameters
    directions      random directions ψ, <ψ, x>, dimensions of symmetric tensors
    configuration   what a sketch is
    store           the artifact: manifest and safetensors, whole or not there
    threads         one processor thread, and why
    devices         which devices there are
    workers         blocks of a build over processes
    sketch          building one, resumable
    cost            what a build will take, and what to expect of it, before it starts
    measure         measurements, and their tables of jets
    sphere          the estimator from random directions: standard errors, choice of degree
    axes            the estimator from every unit's own axis, calibrated on retrains
    estimate        question and prediction: which estimator answers
    resident        sketches in memory that answer
    retrain         ground truth
    supplements     models retrained after an artifact was built, kept beside it
    anchors         which sets to retrain for a calibration
    evaluate        estimates against retrains
    cache           values under a byte budget
    terminal        progress bars and refusals on a terminal
    data            the bundled names, as they are and given to made-up subjects
    plain, bench    an ordinary microgpt, and how fast everything is beside it

Letters for axes, everywhere: S degree · K directions · m units · n documents · T tokens · V vocabulary with BOS · E
width · H heads · P parameters.

The engine knows neither HTTP nor SQL and reads no environment variables; ``python -m engine`` works from files.
"""
