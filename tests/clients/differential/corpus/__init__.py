"""The corpus: scenarios that build state on a broker step by step and record each answer.

A scenario is a function of a `Session`. It must ask the same of every broker, whatever that broker answered before,
except for ids that it got from it. `SCENARIOS` runs in order; the first ones must find an empty broker.
"""

from . import admin, configs, cluster, data, fetching, groups, offsets, refused

SCENARIOS = [
    *cluster.SCENARIOS, *admin.SCENARIOS, *configs.SCENARIOS, *data.SCENARIOS, *fetching.SCENARIOS,
    *groups.SCENARIOS, *offsets.SCENARIOS, *refused.SCENARIOS,
]
