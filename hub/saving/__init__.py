"""Safe, portable state dicts: tensors and plain data that know which optimizer they belong to.

`load` signs the state dicts of an optimizer and checks those that are loaded, by `structure` (is it
a state dict), `align` (which parameter is which, by name), `layout` (do the shapes fit) and
`record` (what the state dict says about the optimizer that wrote it). `convert` reads old files.
"""
