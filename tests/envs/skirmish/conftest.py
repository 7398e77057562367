"""One thread: lanes are few here, and threads that wait for each other on a busy machine crawl."""

import numba

numba.set_num_threads(1)
