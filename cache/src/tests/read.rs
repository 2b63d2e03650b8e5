//! Reads: budgets, bounds, lagging readers, damage.
