"""Tests run on one thread: two threads that wait for each other are slower, and sums stay bit-identical."""

import torch

torch.set_num_threads(1)
