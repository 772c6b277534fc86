"""What pyconv is compared with: an adapter for each.

An adapter is imported by the parent, which only asks what it is, and by the worker that runs it. So the library itself
is imported inside the functions. It offers

``NAME``                     as on the command line
``PACKAGES``                 modules that it needs, and how the package index calls them
``LAYOUTS``                  layouts of the input in which it competes; in others it runs if asked for by name
``DTYPES``                   those that it is measured in, by the names of ``--dtype``
``APPROXIMATE``              why its results differ by more than rounding; empty if they do not
``limit_threads(n)``         called once, before anything else
``prepare(layer, x, w, b, layout)``
                             a function of no arguments that convolves, everything that can be done before a call done;
                             raises `UnsupportedError` with the reason where the library does not offer the convolution
``as_array(result)``         that function's result as an array, indexed (mb, oc, oh, ow) or, of signals, (mb, oc, ow);
                             not timed. Without it, NumPy converts.

``x``, ``w`` and ``b`` are indexed (mb, ic, ih, iw), (oc, ic / g, kh, kw) and (oc,) whatever the memory's layout.
"""
