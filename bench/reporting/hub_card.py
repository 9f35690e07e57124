"""The card of a run's model as a model hub reads it: a YAML header above the text."""

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bench.reporting.model_card import METRICS, STATS, Card, card_text
from bench.reporting.rows import Row, Source, oks, presence


def write_card(row: Row, card: Card) -> str:
    """README.md of the folder."""
    header = ModelCardData(
        license=card.licence.lower(),
        library_name="pytorch",
        pipeline_tag="keypoint-detection",
        tags=["pose-estimation", "keypoint-presence", row.experiment],
        model_name=f"{row.profile}/{row.experiment}-{row.seed}",
        eval_results=list(_eval_results(row, card.source)),
    )
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{card_text(row, card)}").content)


def _eval_results(row: Row, source: Source) -> Iterator[EvalResult]:
    data = row.data
    names = {oks(stat): stat for stat in STATS} | {presence(source, metric): metric for metric in METRICS}
    for key, name in names.items():
        value = row.numbers[key].value
        if value is not None:
            yield EvalResult(
                task_type="keypoint-detection",
                dataset_type=data.source,
                dataset_name=f"{data.name}, val split",
                metric_type=name,
                metric_name=(STATS | METRICS)[name],
                metric_value=value,
            )
