"""What hub adds to a built optimizer's training: clipping, layerwise steps, switching weights."""
