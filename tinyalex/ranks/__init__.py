"""Many processes that train one network together, started and joined by MPI."""
