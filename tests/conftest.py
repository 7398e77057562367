"""One torch thread: the tests' networks are tiny, and two threads that wait for each other on a busy machine crawl."""

import torch

torch.set_num_threads(1)
