"""The loss: multinomial logistic regression."""

import numpy as np

from tinyalex.system.arrays import Array

Cache = tuple[Array, Array]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Cache]:
    """loss = mean over images of -log p[label], p = softmax(logits). Section 3 of the paper.

    logits: (N, classes). labels: integers (N,), ValueError if one names no class. loss: a scalar
    array. The row's maximum is taken away first, which changes nothing in p and keeps exp finite.
    The cache is p and the labels.
    """
    classes = logits.shape[1]
    if labels.shape != logits.shape[:1] or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels {labels} do not fit logits {logits.shape}")
    shifted = logits - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    log_probs = shifted - np.log(total)
    loss = -log_probs[np.arange(len(labels)), labels].mean()
    return np.asarray(loss), (np.exp(log_probs), labels)


def softmax_cross_entropy_backward(cache: Cache) -> Array:
    """dlogits = (p - onehot(label)) / N."""
    probs, labels = cache
    dlogits = probs.copy()
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits / np.asarray(len(labels), probs.dtype)
