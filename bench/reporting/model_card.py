"""The card of a run's model for a model hub: every number from its row, with its interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import POLICIES
from bench.reporting.markdown import UNDEFINED, escape, people_of, render
from bench.reporting.rows import ALWAYS_PRESENT, SOURCES, Estimate, Row, Source, oks, presence

STATS = {"AP": "average precision by OKS", "AR": "average recall by OKS"}
METRICS = {"F1": "F1 of presence", "AUROC": "AUROC of presence"}


class TrainedOn(NamedTuple):
    """How much a run was fitted on: `train` its weights, `calibration` its epoch, threshold and probabilities."""

    train: int  # persons; 0 where the weights are a published file's
    calibration: int  # persons


class Card(NamedTuple):
    """What a card says of a run; `presence_facts` and `origin` as its `config.json` has them."""

    row: Row
    source: Source  # of presence
    trained_on: TrainedOn
    licence: str
    presence_facts: Mapping[str, Any]
    origin: Mapping[str, Any]


def write_card(card: Card) -> str:
    """README.md of the folder: its YAML header and text."""
    row = card.row
    header = ModelCardData(
        license=card.licence.lower(),
        library_name="pytorch",
        pipeline_tag="keypoint-detection",
        tags=["pose-estimation", "keypoint-presence", row.experiment],
        model_name=f"{row.profile}/{row.experiment}-{row.seed}",
        eval_results=list(_eval_results(card)),
    )
    text = render(
        TEMPLATE,
        name=escape(f"{row.experiment}, seed {row.seed}, profile {row.profile}"),
        row=row,
        people=people_of([row]),
        drawn=row.data.source == "drawn",
        source=SOURCES[card.source],
        from_head=card.source == "presence_head",
        policy=POLICIES[row.protocol.policy].meaning,
        numbers=list(_number_lines(card)),
        keypoints=", ".join(KEYPOINT_NAMES),
        start=_start(row.protocol.init),
        formula=_formula(card.presence_facts),
        facts=card.presence_facts,
        origin=card.origin,
        licence=card.licence,
        trained_on=card.trained_on,
    )
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}").content)


def _start(init: str) -> str:
    """Of which weights a backbone started."""
    words = {"warmstart": "weights trained beforehand on other drawn people", "random": "random weights"}
    return words.get(init, f"weights `{init}`")


def _formula(facts: Mapping[str, Any]) -> str:
    """How a score s becomes a probability."""
    intercept = f" {'+' if facts['intercept'] > 0 else '-'} {abs(facts['intercept']):.6g}" if facts["intercept"] else ""
    return f"sigmoid({facts['slope']:.6g} * s{intercept})"


def _eval_results(card: Card) -> Iterator[EvalResult]:
    data = card.row.data
    names = {oks(stat): stat for stat in STATS} | {presence(card.source, metric): metric for metric in METRICS}
    for key, name in names.items():
        value = card.row.numbers[key].value
        if value is not None:
            yield EvalResult(
                task_type="keypoint-detection",
                dataset_type=data.source,
                dataset_name=f"{data.name}, val split",
                metric_type=name,
                metric_name=(STATS | METRICS)[name],
                metric_value=value,
            )


def _number_lines(card: Card) -> Iterator[Sequence[str]]:
    """Name, value and interval of each number that the card shows, x 100."""
    numbers = card.row.numbers
    for stat, name in STATS.items():
        yield name, _percent(numbers[oks(stat)])
    for metric, name in METRICS.items():
        yield f"{name}, read from the {SOURCES[card.source]}", _percent(numbers[presence(card.source, metric)])
    yield "F1 of always saying present", _percent(numbers[presence(ALWAYS_PRESENT, "F1")])


def _percent(estimate: Estimate) -> str:
    value, low, high = (
        UNDEFINED if x is None else f"{100 * x:.1f}" for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


TEMPLATE = """
# {{ name }}

A top-down model of human pose, read with how likely it is that each keypoint is there at all. Of a person's box it
gives {{ keypoints.count(",") + 1 }} heatmaps ({{ keypoints }})
{% if from_head %}
and, by its presence head, a logit for each keypoint.
{% else %}
and nothing else: presence is read from the height of each heatmap's peak.
{% endif %}
{{ row.num_parameters }} parameters; input {{ row.input_size[0] }} x {{ row.input_size[1] }} pixels (w x h).

## Intended use

Research on presence and occlusion, and comparison of pose models by the suite that trained it. It needs boxes of
people from elsewhere.
{% if drawn %}
It was trained and tested on **drawn people, not on photographs**: it shows how the method behaves, and is no tool for
pictures of real people.
{% endif %}
Not for identifying, watching or judging people, nor where a wrong keypoint can do harm.

## What presence means

The policy is `{{ row.protocol.policy }}`: {{ policy }}. A probability of presence is that of this label, for people
cropped as those of the test, and not of a keypoint being visible unless the policy says so.

## Training data

{% if trained_on.train %}
{{ trained_on.train }} {{ people }} to train on, the backbone starting from {{ start }}; {{ trained_on.calibration }} \
others to choose the epoch, the threshold and the calibration.
{% else %}
The weights are the published file `{{ row.protocol.init }}`, as it is; {{ trained_on.calibration }} {{ people }} to \
choose the threshold and the calibration.
{% endif %}
{% if drawn %}
Drawn people are figures that the suite's generator renders, with true positions of all keypoints; no person, no
photograph and no scraped image is among them.
{% else %}
The images and annotations are those of {{ row.data.name }}, under the terms of their authors.
{% endif %}

## Numbers

On {{ row.data.num_persons }} {{ people }} in {{ row.data.num_images }} images that nothing was chosen on,
{{ row.data.num_present }} keypoints present and {{ row.data.num_absent }} absent; {{ row.protocol.boxes }} boxes, poses
scored by `{{ row.protocol.score_rule }}`, flip test {{ row.protocol.flip_test }}; x 100, with 95 % intervals
({{ row.protocol.intervals }}).

| | % |
|:---|---:|
{% for name, value in numbers %}
| {{ name }} | {{ value }} |
{% endfor %}

## Calibration

Presence is `{{ formula }}` of the {{ "logit" if from_head else "heatmap peak" }} s, by
{{ "temperature" if from_head else "Platt" }} scaling, fitted on the calibration split. A keypoint is called present
from {{ "%.4f" % facts.threshold }} on ({{ facts.threshold_rule }}). Both hold for the run's
own flip test ({{ origin.flip_test }}) and crop ({{ origin.crop }}).

## Limits

- One training, seed {{ row.seed }}: intervals cover the choice of test images, not the luck of a training.
- Probabilities hold where keypoints are as often absent as in the calibration split; elsewhere fit them anew.
{% if drawn %}
- Nothing is known of photographs.
{% endif %}
- Boxes were {{ row.protocol.boxes }}: a detector's are worse.

## How to load

With the code of the suite (packages `models` and `bench`) on the path, in this folder:

```python
import json
from safetensors.torch import load_file
from models import build_model
model = build_model(**json.load(open("config.json"))["build_model"]).eval()
model.load_state_dict(load_file("model.safetensors"))
```

`model(image)` takes RGB (N, 3, {{ row.input_size[1] }}, {{ row.input_size[0] }}) with values of 0 to 255, which it \
normalises itself, and returns `heatmaps` and
`presence_logits`. `preprocessor_config.json` says how a box becomes the input. Of `config.json`,
`decode(heatmaps, Codec(**config["codec"]), config["decoding"])` from `bench.data.codec` makes keypoints in input
pixels, and `presence` holds the calibration.

## Provenance

| | |
|:---|:---|
{% for key, value in origin.items() %}
| {{ key }} | {{ value }} |
{% endfor %}

## Licence

{% if licence == "other" %}
That of the authors of the published weights.
{% else %}
{{ licence }}
{% endif %}
"""
