"""The card of a run's model, one text for its folder and for the reports: every number from its row, with interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import POLICIES
from bench.reporting.markdown import UNDEFINED, boxes_given, empty_class_note, escape, people_of, render
from bench.reporting.rows import ALWAYS_PRESENT, SOURCES, Estimate, Row, Source, oks, presence

STATS = {"AP": "average precision by OKS", "AR": "average recall by OKS"}
METRICS = {"F1": "F1 of presence", "AUROC": "AUROC of presence"}
CALIBRATORS = {
    "none": "its own sigmoid, as nothing could be fitted",
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
}
CHANGING = frozenset({"code_revision"})
"""Of a run's origin, what a page leaves out: it must come out the same whenever it is made."""


class TrainedOn(BaseModel):
    """How much a run was fitted on: `train` its weights, `calibration` its epoch, threshold and probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int  # persons; 0 where the weights are a published file's
    calibration: int  # persons


class Card(BaseModel):
    """What a card says of a run beside its row; `presence` and `origin` as the `config.json` of its folder has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source  # of presence
    trained_on: TrainedOn
    licence: str
    presence: dict[str, Any] | None  # None where there is nothing to read
    nothing_to_read: str = ""  # why, where it is so
    origin: dict[str, Any]


def card_text(row: Row, card: Card) -> str:
    """The card in the folder that holds the run's weights."""
    return _render(row, card, card.origin, in_folder=True)


def card_page(row: Row, card: Card) -> str:
    """The card in the reports: it leads to the other pages, and says how to make the folder."""
    return _render(row, card, {key: card.origin[key] for key in card.origin if key not in CHANGING}, in_folder=False)


def _render(row: Row, card: Card, origin: Mapping[str, Any], *, in_folder: bool) -> str:
    return render(
        TEMPLATE,
        name=escape(f"{row.experiment}, seed {row.seed}, profile {row.profile}"),
        row=row,
        people=people_of([row]),
        boxes_given=boxes_given([row]),
        drawn=row.data.source == "drawn",
        source=SOURCES[card.source],
        from_head=card.source == "presence_head",
        policy=POLICIES[row.protocol.policy].meaning,
        numbers=list(_number_lines(row, card.source)),
        keypoints=", ".join(KEYPOINT_NAMES),
        start=_start(row.protocol.init),
        formula=_formula(card.presence) if card.presence else None,
        calibrator=calibrator_of(card),
        facts=card.presence,
        nothing_to_read=escape(card.nothing_to_read),
        threshold=row.thresholds[card.source],
        note=empty_class_note([row]),
        origin=origin,
        licence=card.licence,
        trained_on=card.trained_on,
        in_folder=in_folder,
        run=f"{row.experiment}-{row.seed}",
    )


def calibrator_of(card: Card) -> str | None:
    """In words; None where there is nothing to read."""
    return CALIBRATORS[card.presence["calibrator"]] if card.presence else None


def _start(init: str) -> str:
    """Of which weights a backbone started."""
    words = {"warmstart": "weights trained beforehand on drawn people", "random": "random weights"}
    return words.get(init, f"weights `{init}`")


def _formula(facts: Mapping[str, Any]) -> str:
    """How a score s becomes a probability."""
    intercept = f" {'+' if facts['intercept'] > 0 else '-'} {abs(facts['intercept']):.6g}" if facts["intercept"] else ""
    return f"sigmoid({facts['slope']:.6g} * s{intercept})"


def _number_lines(row: Row, source: Source) -> Iterator[Sequence[str]]:
    """Name, value and interval of each number that the card shows, x 100."""
    numbers = row.numbers
    for stat, name in STATS.items():
        yield name, _percent(numbers[oks(stat)])
    for metric, name in METRICS.items():
        yield f"{name}, read from the {SOURCES[source]}", _percent(numbers[presence(source, metric)])
    yield "F1 of always saying present", _percent(numbers[presence(ALWAYS_PRESENT, "F1")])


def _percent(estimate: Estimate) -> str:
    value, low, high = (
        UNDEFINED if x is None else f"{100 * x:.1f}" for x in (estimate.value, estimate.low, estimate.high)
    )
    return UNDEFINED if estimate.value is None else f"{value} [{low}, {high}]"


TEMPLATE = """
{% if in_folder %}
# {{ name }}
{% else %}
# Model card: {{ name }}

All [model cards](../README.md). The same run: [curves, parameters and all numbers](../../runs/{{ run }}/README.md); \
beside the others: [systems](../../systems/README.md), [presence](../../presence/README.md).
{% endif %}

A top-down model of human pose, read with how likely it is that each keypoint is there at all. Of a person's box it
gives {{ keypoints.count(",") + 1 }} heatmaps ({{ keypoints }})
{% if from_head %}
and, by its presence head, a logit for each keypoint.
{% else %}
and nothing else: presence is read from the height of each heatmap's peak.
{% endif %}
{{ row.num_parameters }} parameters; input {{ row.input_size[0] }} x {{ row.input_size[1] }} pixels (w x h).

## Intended use

Research on presence and occlusion, and comparison of pose models by this suite. It needs boxes of people from
elsewhere.
{% if drawn %}
It was {{ "trained and " if trained_on.train }}tested on **drawn people, not on photographs**: it shows how the method \
behaves, and is no tool for pictures of real people.
{% endif %}
Not for identifying, watching or judging people, nor where a wrong keypoint can do harm.

## What presence means

The policy is `{{ row.protocol.policy }}`: {{ policy }}. A probability of presence is that of this label, for people
cropped as those of the test, and not of a keypoint being visible unless the policy says so.

## Training data

{% if trained_on.train %}
{{ trained_on.train }} {{ people }} to train on, the backbone starting from {{ start }}; {{ trained_on.calibration }} \
of the calibration split to choose the epoch, the threshold and the calibration.
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

On the val split, {{ row.data.num_persons }} {{ people }} in {{ row.data.num_images }} images,
{{ row.data.num_present }} keypoints present and {{ row.data.num_absent }} absent; {{ row.protocol.boxes }} boxes, poses
scored by `{{ row.protocol.score_rule }}`, flip test {{ row.protocol.flip_test }}; x 100, with 95 % intervals
({{ row.protocol.intervals }}).

{{ note }}

| number | % |
|:---|---:|
{% for name, value in numbers %}
| {{ name }} | {{ value }} |
{% endfor %}

## Calibration

{% if facts %}
Presence is `{{ formula }}` of the {{ "logit" if from_head else "heatmap peak" }} s, by
{{ calibrator }}{% if facts.calibrator == "none" %}: the calibration split has only one class of keypoints, present or
absent{% else %}, fitted on the calibration split{% endif %}. A keypoint is called present
from {{ "%.4f" % facts.threshold }} on ({{ facts.threshold_rule }}). Both hold for the run's
own flip test ({{ origin.flip_test }}) and crop ({{ origin.crop }}).
{% else %}
None: no probability can be read from it, as {{ nothing_to_read }}.
{% if threshold is not none %}
A keypoint is called present where its {{ "presence" if from_head else "peak" }} is at least \
{{ "%.4f" % threshold }} ({{ row.protocol.threshold_rule }}).
{% endif %}
{% endif %}

## Limits

{% if trained_on.train %}
- One training, seed {{ row.seed }}: intervals cover the choice of test images, not the chance in a training.
{% endif %}
{% if facts %}
- Probabilities were fitted to the calibration split: where keypoints are absent more or less often, fit them anew.
{% endif %}
{% if drawn %}
- It was not tested on photographs.
{% endif %}
{% if boxes_given %}
- Boxes were annotated ones: it was not tested on those of a detector.
{% endif %}

## How to load

{% if in_folder or facts %}
{% if not in_folder %}
Write the weights and this card to a folder:

```sh
python -m bench.export_hub FOLDER --run {{ run }} --profile {{ row.profile }}
```

{% endif %}
With the code of the suite (packages `models` and `bench`) on the path, in {{ "this" if in_folder else "that" }} folder:

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
{% else %}
Not at all: `bench.export_hub` refuses a run of whose presence nothing can be read.
{% endif %}

## Provenance

| fact | value |
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
