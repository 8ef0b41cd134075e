# SPDX-License-Identifier: LGPL-2.1-or-later
"""Muon: momentum whose matrices are made orthogonal before each step (K. Jordan, 2024).

On this autoencoder it needs a fraction of AdamW's steps.  A convolution's weight counts
as a matrix [out, in * taps].  Matrices of equal shape go through the Newton-Schulz
iteration as one batch, so a step is a few dozen launches and fits into a CUDA graph.
"""
import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(g, steps=5):
    """[N, r, c] -> about the nearest matrices with singular values 1"""
    a, b, c = COEFFICIENTS
    x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.mT if tall else x


class Muon:
    """Works on a fixed list of parameters; `lr` is a device scalar (or a float)."""

    def __init__(self, params, lr, momentum=0.95, decay=0.0):
        self.params, self.lr, self.momentum, self.decay = list(params), lr, momentum, decay
        self.buffers = [torch.zeros_like(p, memory_format=torch.contiguous_format) for p in self.params]
        self.groups = {}
        for i, p in enumerate(self.params):
            self.groups.setdefault(tuple(p.flatten(1).shape), []).append(i)

    @torch.no_grad()
    def step(self):
        grads = [p.grad for p in self.params]
        torch._foreach_lerp_(self.buffers, grads, 1 - self.momentum)
        for (rows, columns), index in self.groups.items():
            g = torch.stack([grads[i].lerp(self.buffers[i], self.momentum).flatten(1) for i in index])
            # Scaled to the step length that AdamW would take, so that rates compare.
            u = orthogonalise(g) * (0.2 * max(rows, columns) ** 0.5)
            u = u * -self.lr
            for i, d in zip(index, u.unbind()):
                p = self.params[i]
                if self.decay:
                    p.mul_(1 - self.lr * self.decay)
                p.add_(d.view_as(p))
