"""The benchmark: runs, recorded results and the tables made from them."""
