"""The transport function behind a clean break in a graph of ``torch.compile``; importing it imports the compiler."""

from __future__ import annotations

import torch

from fieldmark.functional.transport.emd import emd_eagerly

emd_outside = torch.compiler.disable(emd_eagerly, reason="transport problems are solved outside of the graph")
