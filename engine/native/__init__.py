"""The fast path on the processor: training and measuring in the ring as C++ that is compiled for this machine.

    lanes.h       a vector register of numbers, and functions of them
    jet.h         the ring on a vector register's worth of directions
    layers.h      linear maps, norms, softmax, Adam, each with its pullback
    microgpt.cpp  the model forward and backward, a run of training, a measurement
    library.py    compiling, keeping and calling them
    groups.py     training and measuring in groups of directions

Torch launches a thousand small operations a step, each a pass over memory. Here a step is one function: directions are
innermost, a product in the ring stays in registers from its first factor to its sum, a gradient is used up by Adam as
soon as it is known, and nothing but parameters and moments goes through memory. The torch code of `engine.jet`,
`engine.model` and `engine.train` says what is computed; it is the oracle in the tests, and does the work where there is
no compiler, on other devices and at high degrees.
"""
