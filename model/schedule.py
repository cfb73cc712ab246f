"""Learning rates as a function of the step."""

import math

from model.settings import Optimisation


def learning_rate(step: int, settings: Optimisation) -> float:
    """Learning rate of `step`, 1 .. settings.steps: linear warm-up, then the schedule down to final_lr of the peak.

    cosine: final + (1 - final) * (1 + cos(pi * progress)) / 2. wsd: constant, then over the last `decay` of the
    steps down by 1 - sqrt(progress) (arXiv:2405.18392).
    """
    peak, total, final = settings.learning_rate, settings.steps, settings.final_lr
    warmup = math.ceil(settings.warmup * total)
    if step <= warmup:
        return peak * step / warmup
    if settings.schedule == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
    decay = math.ceil(settings.decay * total)
    if settings.schedule == "wsd" and step > total - decay:
        return peak * (final + (1 - final) * (1 - math.sqrt((step - (total - decay)) / decay)))
    return peak
