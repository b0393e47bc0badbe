"""The paper's figures and tables, and one figure of training, made from tables of numbers alone.

Each exhibit has a module here, which tells what it needs compared and what it draws, and one of the same name in
`drawing`, which draws it. The modules here never load matplotlib, the modules in `drawing` never load PyTorch: the
two libraries load at the same time, in different processes.
"""
