"""One thread: the tests' networks are tiny, and two threads that wait for each other on a busy machine crawl."""

import numba
import torch

torch.set_num_threads(1)
numba.set_num_threads(1)
