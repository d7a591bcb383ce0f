"""Neverseen's engine: what would the model be without these documents?

The map, in the order in which things use each other:

    errors          everything the engine refuses
    refusals        which errors of an object store pass
    locations       where artifacts lie: directories and object stores
    cache           values under a byte budget
    batching        what several threads ask for at about the same time, done together
    documents       documents, units, vocabulary, import
    jet             the ring: truncated polynomials with a shared real constant term
    model           microgpt in the ring, forward and reverse
    captured        a step that CUDA captures as a graph and replays
    compiled        element-wise rules that torch compiles
    train           Adam in the ring; one pass gives the jets of the trained parameters
    native          the fast path on the processor: the same training and measuring, as C++ compiled for the machine
    directions      random directions ψ, <ψ, x>, dimensions of symmetric tensors
    configuration   what a sketch is
    held            trained parameters in memory, in the layout that measures them fastest
    store           the artifact: manifest and safetensors, whole or not there
    workspace       the directory in which one grows
    remote          the same in an object store
    copies          local copies of what is there
    threads         one processor thread, and why
    devices         which devices there are
    memory          how much memory the process has had
    workers         blocks of a build over threads or processes
    blocks          training one block of a sketch
    sketch          building one, resumable
    connection      a Ray cluster: connecting to one, or starting it
    tasks, cluster  blocks of a build and retrains over its nodes: their side, and the driver's
    cost            what a build will take, and what to expect of it, before it starts
    measure         measurements, read out of token probabilities
    retrain         ground truth
    anchors         which sets to retrain for a calibration
    holdings        what is measured, wherever it lies
    frame           what all measurements of a sketch share, and sums over deletion sets; from here on in NumPy
    evidence        what a sketch says of one measurement, whatever is deleted: its table
    interpolation   interactions between units from random directions, by a kernel system
    estimators      axes, pairs, hybrid, interpolation: from a table to values for many sets at once
    regression      their terms weighted as fits similar retrained sets
    similarity      where deletion sets are, and how similar anchors are to a set
    sphere          the paper's estimator from random directions alone: standard errors, choice of degree
    calibration     which estimator had the least error at similar retrained sets, and what bar that gives
    leave_one_out   what would have been answered at anchors, had they not been known
    question        what may be asked, and what comes back
    estimate        from question to answer: which estimator, which degree, what bar
    attribution     the units whose deletion changes a measurement most
    reliability     how right answers about a measurement would have been where the truth is known
    supplement_file the file of a model that was retrained after an artifact was built
    supplements     these models, kept beside the artifact
    resident        sketches in memory that answer
    shard, shards   a sketch spread over processes: one of them, and how the front sees all
    counterfactual  the model without a deletion set, to keep and to draw texts from
    stability       whether what units do to the parameters adds up
    evaluate        estimates against retrains
    figures, plots  the paper's figures, and pictures of them
    terminal        progress bars and refusals on a terminal
    data            the bundled names, as they are and given to made-up subjects
    plain, bench    an ordinary microgpt, and how fast everything is beside it

Letters for axes, everywhere: S degree · K directions · m units · n documents · T tokens · V vocabulary with BOS · E
width · H heads · P parameters.

The engine knows neither HTTP nor SQL and reads no environment variables; ``python -m engine`` works from files.
"""
