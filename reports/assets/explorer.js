"use strict";
// The threshold explorer: from numbers of present and absent keypoints between thresholds to what a threshold gives.
(() => {
  const data = JSON.parse(document.getElementById("explorer-data")?.textContent ?? "null");
  if (!data) return;
  const [form, source, policy, keypoint, slider, said, reset] =
    ["form", "source", "policy", "keypoint", "threshold", "said", "reset"].map((id) =>
      document.getElementById(`explorer-${id}`));

  const study = () => data.sources[source.value].policies[policy.value];

  /** The sampled thresholds, the chosen one among them, as in bench.reporting.explorer. */
  function thresholds() {
    const grid = Array.from({ length: data.steps + 1 }, (_, i) => i / data.steps);
    return [...grid, study().chosen].sort((a, b) => a - b);
  }

  /** How many of the picked keypoints score at least thresholds[index], and how many there are. */
  function tally(levels, index) {
    const rows = keypoint.value === "" ? levels : [levels[keypoint.value]];
    const sum = (row, from) => row.slice(from).reduce((total, number) => total + number, 0);
    return [index + 1, 0].map((from) => rows.reduce((total, row) => total + sum(row, from), 0));
  }

  function numbersAt(index) {
    const [tp, present] = tally(study().present, index);
    const [fp] = tally(study().absent, index);
    const fn = present - tp;
    return {
      precision: tp / (tp + fp),
      recall: tp / present,
      F1: present ? (2 * tp) / (2 * tp + fp + fn) : NaN,
      hallucinated: fp / data.num_persons,
      missed: fn / data.num_persons,
    };
  }

  function spell(metric, value) {
    if (Number.isNaN(value)) return "–";
    const isShare = ["precision", "recall", "F1"].includes(metric);
    return isShare ? `${(100 * value).toFixed(1)} %` : value.toFixed(2);
  }

  function show() {
    const all = thresholds(), chosen = all.indexOf(study().chosen);
    const found = { slider: numbersAt(Number(slider.value)), chosen: numbersAt(chosen) };
    for (const cell of form.querySelectorAll("[data-metric]")) {
      cell.textContent = spell(cell.dataset.metric, found[cell.dataset.at][cell.dataset.metric]);
    }
    const at = Number(slider.value) === chosen ? ", the one chosen on calibration" : "";
    const text = Object.entries(found.slider).map(([metric, value]) => `${metric} ${spell(metric, value)}`);
    const threshold = all[slider.value].toFixed(at ? 3 : 2);
    slider.setAttribute("aria-valuetext", threshold + at);
    said.textContent = `Threshold ${threshold}${at}: ${text.slice(0, 3).join(", ")}; per person ${text.slice(3).join(", ")}.`;
  }

  function startAtChosen() {
    slider.value = thresholds().indexOf(study().chosen);
    show();
  }

  slider.max = data.steps + 1;
  slider.addEventListener("input", show);
  keypoint.addEventListener("change", show);
  for (const select of [source, policy]) select.addEventListener("change", startAtChosen);
  reset.addEventListener("click", startAtChosen);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  startAtChosen();
})();
