"""Safe, portable state dicts: tensors and plain data, with a record of what wrote them.

`load` signs an optimizer's state dicts and checks those loaded into it, with `structure` (is it a
state dict), `record` (which optimizer and arguments wrote it), `align` (match parameters by name)
and `layout` (do the shapes fit). `convert` reads files with pickled objects.

Several parts of hub hook into saving and loading, and their order decides whether the result is
correct. `state_dict()` runs, after torch has collected the state:

1. `translate_state` of `hub.repairs`, if the plugin's factory calls it: live state becomes tensors
   and plain data.
2. `save_bits` of `hub.running.buckets`, with `rounding`: the bits of weights become bytes.
3. `Follower.export` of `hub.running.train_eval`, for optimizers with evaluation weights: the
   training weights join the state.
4. `export_state` of `hub.running.sharded`, if parameters are sharded: the state of all of them, as
   DTensors.
5. `sign` of `load`: it records the layout of what the others return. After it, `keep_on_host` of
   `hub.running.buckets`, with `offload`, only moves tensors of the device to the host.

`load_state_dict()` of an optimizer built by hub runs:

1. `check_structure`, before any code relies on the structure.
2. `align` of `load`, the first hook: it checks the record, matches parameters by name and checks
   shapes. It is prepended because the others rely on the optimizer's own order of parameters.
3. `import_state` of `hub.running.sharded`, if parameters are sharded: it keeps what this rank
   steps.
4. `load_for_stand_ins` of `hub.running.buckets`, with `rounding` or `offload`: tensors of the dtype
   that is stepped, on the device where the state is kept, stand in for the parameters. Then
   `keep_state_dtypes` of `dtypes`, if the factory calls it, notes the aligned tensors.
5. torch, or the class's own `load_state_dict`, casts the state, moves it to its devices and
   replaces the groups.
6. `load_for_stand_ins` puts the parameters back, and `keep_state_dtypes` the tensors as they were
   before the cast. Both are prepended.
7. `translate_state` and `save_bits` turn them into live state.
8. `Follower.after_load_of_state` takes the training weights out of the state again, and evaluates
   them with the live state that 7 returns.
9. `load` copies tensors that still share memory with the state dict. If anything above raises, it
   restores the optimizer as it was.
10. `keep_on_host` of `hub.running.buckets`, with `offload`: what is on the device goes to the host.

Within one kind of hook torch calls them in order of registration, so the factory runs first, then
`hub.running.attach`, whose last hooks are those of `load`.
"""
