"""The ML Test Score of a use case: the 28 tests of Breck et al. (2017), each a check on what its life has left."""
