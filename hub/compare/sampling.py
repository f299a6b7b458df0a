proposals = best = None
