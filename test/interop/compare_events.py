"""Compares every scalar that TensorBoard's own reader finds in the event files of a training with its log.jsonl.

    python compare_events.py OUTPUT_DIR
"""

import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Of a line of the log, but no scalars of a step.
FACTS = {"event", "time", "step"}


def tag_of(key):
    return f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


output = Path(sys.argv[1])
(events,) = output.glob("runs/*/*tfevents*")
reader = EventAccumulator(str(events.parent), size_guidance={"scalars": 0})
reader.Reload()
found = {
    (tag, event.step): event.value
    for tag in reader.Tags()["scalars"]
    for event in reader.Scalars(tag)
}
logged = {}
for line in (output / "log.jsonl").read_text().splitlines():
    entry = json.loads(line)
    if entry["event"] not in ("log", "evaluate"):
        continue
    for key, value in entry.items():
        if key not in FACTS:
            logged[tag_of(key), entry["step"]] = single(value)
assert found and found == logged, {
    key: (found.get(key), logged.get(key))
    for key in found.keys() | logged.keys()
    if found.get(key) != logged.get(key)
}
print(f"{len(found)} scalars are equal.")
