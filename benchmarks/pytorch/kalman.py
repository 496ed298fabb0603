"""LoKO with the softmax observation as one would write it in PyTorch: batch 1, exact rank, default options.

G holds the k stored rows of the Jacobian of the logits, and everything else is k x k, in float64:
  reduced  G = U^T J, k = m - 1, with an orthonormal basis U of the complement of the all-ones vector
  full     G = J,     k = m
The observation's Jacobian is H = E G. Symbols are those of docs/filter.md.
"""

import math

import torch


def helmert(m):
    """Orthonormal basis of the complement of the all-ones vector, [m, m - 1] in float64."""
    basis = torch.zeros(m, m - 1, dtype=torch.float64)
    for j in range(1, m):
        basis[:j, j - 1] = 1.0
        basis[j, j - 1] = -float(j)
        basis[:, j - 1] /= math.sqrt(j * (j + 1))
    return basis


class Kalman:
    """The filter beside the model: takes logits and G, returns the change of theta."""

    def __init__(self, m, reduced, beta=0.95, r0=0.1, tau=1.0, trust=1.0):
        self.basis = helmert(m)
        self.reduced = reduced
        self.beta, self.tau, self.trust = beta, tau, trust
        self.r = r0 * torch.eye(m - 1, dtype=torch.float64)
        self.p = None

    def cotangents(self):
        """The rows to propagate, [k, m]."""
        return self.basis.T if self.reduced else torch.eye(self.basis.shape[0], dtype=torch.float64)

    def change(self, z, g, label):
        """Learns from logits z [m], G [k, n] and the label; returns what is added to theta [n]."""
        z = z.double()
        pi = torch.softmax(z, dim=0)
        c = torch.diag(pi) - torch.outer(pi, pi)
        e = -pi
        e[label] += 1.0
        e = self.basis.T @ e
        to_observation = self.basis.T @ c  # E, such that H = E G
        if self.reduced:
            to_observation = to_observation @ self.basis

        if self.p is None:
            norm = (to_observation @ (g @ g.T).double()).mul(to_observation).sum()
            self.p = torch.full((g.shape[1],), float(self.tau * c.trace() / norm), dtype=g.dtype)
        weighted = g * self.p
        gram = (weighted @ g.T).double()
        m = to_observation @ gram @ to_observation.T
        self.r = self.beta * self.r + (1 - self.beta) * (torch.outer(e, e) + m)
        factor = torch.linalg.cholesky((m + self.r + m.T + self.r.T) / 2)
        gain = to_observation.T @ torch.cholesky_solve(e[:, None], factor)[:, 0]

        moved = gram @ gain
        moved = self.basis @ moved if self.reduced else moved - moved.mean()
        scale = min(1.0, float(self.trust / moved.abs().max()))
        delta = weighted.T @ (scale * gain).to(g.dtype)
        root = torch.linalg.solve_triangular(factor, to_observation, upper=False).to(g.dtype)
        self.p = self.p * (1 - self.p * (root @ g).square().sum(0))
        return delta
