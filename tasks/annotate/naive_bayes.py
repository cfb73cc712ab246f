"""py3langid's model as the kernel reads it; alone in its file, by whose digest it is kept on disk."""

import numpy as np

from tasks.mapped import mapped


@mapped(libraries=("py3langid",))
def naive_bayes() -> tuple[np.ndarray, ...]:
    """py3langid's model: float32 (n-grams, labels), the prior, float64 (labels,), moves and states as the kernel has
    them, and the labels, UTF-8."""
    from py3langid import modelio
    from py3langid.langid import MODEL_DIR, MODEL_FILE

    table, prior, labels, moves, rows, features = modelio.load_model(MODEL_DIR / MODEL_FILE)
    states = np.stack([np.asarray(rows, dtype=np.int64) << 8, np.asarray(features)], axis=1)
    return (np.ascontiguousarray(table, dtype=np.float32), np.asarray(prior, dtype=np.float64),
            np.asarray(moves, dtype=np.uint32), np.ascontiguousarray(states, dtype=np.int32),
            np.frombuffer("\n".join(labels).encode(), np.uint8))
