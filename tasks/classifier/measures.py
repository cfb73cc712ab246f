"""What a classifier's scores are worth: ranking, calibration, and the thresholds that keep a share of random crawl.

All functions take scores and labels of n held-out texts: float64, and 1 (positive) or 0.
"""

import numpy as np

SHARES = (0.01, 0.02, 0.05, *(round(0.1 * k, 1) for k in range(1, 10)), 0.15, 0.25, 0.75, 0.95)
BINS = 10


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, equal scores counting half
    (Mann and Whitney 1947; Hanley and McNeil 1982). NaN without one of the two."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    if not len(positives) or not len(negatives):
        return float("nan")
    return float(_placements(positives, np.sort(negatives)).mean())


def auc_interval(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The 95 % confidence interval of the AUC, from DeLong's variance (DeLong et al. 1988,
    https://doi.org/10.2307/2531595), on the log odds so that it stays between 0 and 1. Texts count as independent."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    if min(len(positives), len(negatives)) < 2:
        return float("nan"), float("nan")
    above = _placements(positives, np.sort(negatives))
    below = 1 - _placements(negatives, np.sort(positives))
    area = above.mean()
    error = np.sqrt(above.var(ddof=1) / len(positives) + below.var(ddof=1) / len(negatives))
    if not 0 < area < 1:
        return float(area), float(area)
    middle, reach = np.log(area / (1 - area)), 1.96 * error / (area * (1 - area))
    return float(1 / (1 + np.exp(reach - middle))), float(1 / (1 + np.exp(-reach - middle)))


def _placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each score, the share of `others` (sorted) below it, equal ones counting half."""
    return (np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")) / (2 * len(others))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance of the probabilities from the truth (Brier 1950)."""
    return float(np.mean((probabilities - labels) ** 2))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[dict]:
    """For each of `bins` equally wide ranges of probability: low, high, texts, mean probability and share of positives.

    A range without texts is left out.
    """
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    rows = []
    for k in np.unique(place):
        of = place == k
        rows.append({"low": round(k / bins, 4), "high": round((k + 1) / bins, 4), "texts": int(of.sum()),
                     "probability": float(probabilities[of].mean()), "positive": float(labels[of].mean())})
    return rows


def calibration_error(table: list[dict]) -> float:
    """The expected calibration error of a reliability table: the mean distance of probability and share of positives,
    weighted by texts (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602)."""
    texts = sum(row["texts"] for row in table)
    return sum(row["texts"] * abs(row["probability"] - row["positive"]) for row in table) / max(texts, 1)


def platt(logits: np.ndarray, labels: np.ndarray, steps: int = 100) -> tuple[float, float]:
    """(a, b) such that 1 / (1 + exp(-(a * logit + b))) is calibrated: Platt's scaling by Newton's method, with his
    smoothed targets (Platt 1999; Lin, Lin and Weng 2007, https://doi.org/10.1007/s10994-007-5018-6)."""
    n, good = len(labels), int(labels.sum())
    wanted = np.where(labels == 1, (good + 1) / (good + 2), 1 / (n - good + 2))
    columns = np.stack([logits, np.ones(n)])

    def loss(ab) -> float:
        odds = ab[0] * logits + ab[1]
        return float(np.sum(np.logaddexp(0, odds) - wanted * odds))

    ab = np.array([1.0, 0.0])
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(ab @ columns, -500, 500)))
        slope = (columns * (probability - wanted)).sum(axis=1)
        weight = probability * (1 - probability)
        curve = np.array([[np.sum(weight * logits * logits), np.sum(weight * logits)],
                          [np.sum(weight * logits), np.sum(weight)]]) + 1e-9 * np.eye(2)
        move, before = np.linalg.solve(curve, slope), loss(ab)
        while loss(ab - move) > before and np.abs(move).max() > 1e-12:
            move /= 2
        ab = ab - move
        if np.abs(slope).max() < 1e-7 * n:
            break
    return float(ab[0]), float(ab[1])


def confusion(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict:
    """Texts by what they are and what the threshold makes of them; precision and recall of the positives."""
    kept = scores >= threshold
    table = {"true_positive": int((kept & (labels == 1)).sum()), "false_positive": int((kept & (labels == 0)).sum()),
             "false_negative": int((~kept & (labels == 1)).sum()), "true_negative": int((~kept & (labels == 0)).sum())}
    chosen, good = int(kept.sum()), int((labels == 1).sum())
    return {"threshold": threshold, **table, "precision": table["true_positive"] / chosen if chosen else None,
            "recall": table["true_positive"] / good if good else None}


def keep_table(negatives: np.ndarray, shares=SHARES) -> list[dict]:
    """The score that the best `share` of random crawl reaches, for each share: quantiles of the negatives' scores, by
    linear interpolation between order statistics."""
    return [{"keep": share, "threshold": float(np.quantile(negatives, 1 - share))} for share in sorted(shares)]
