"""From tiles to programs: ordering, placement, micro-ops, emission."""
