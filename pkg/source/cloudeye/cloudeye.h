/* The Cloud Eye source: alarms, as Cloud Eye publishes them to a topic of SMN. The event is SMN's. */
#pragma once

#include "source/smn/smn.h"

struct cloudeye_spec {
        struct smn_spec smn; /* stands first: what smn_sample reads */
        struct strings alarms, severities, states;
};
extern const struct type cloudeye_type;
extern const struct source_kind cloudeye_source;
/* Is a message an alarm that the spec wants? What is no alarm's JSON is not one. */
bool cloudeye_wants(const void *spec, struct str message);
