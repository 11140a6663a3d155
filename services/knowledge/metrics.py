"""What operators see of searches, in Prometheus."""

from prometheus_client import Counter

_RERANKED = Counter("parley_search_reranked", "Searches that the rerank model was asked for.", ["outcome"])


def reranked(outcome: str) -> None:
    """Count one: "done", or "skipped" because the model failed or was too slow."""
    _RERANKED.labels(outcome).inc()
