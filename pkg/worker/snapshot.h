/* What /metrics, /status and /readyz answer, made a few Triggers at a time, since there may be thousands:
 * each is shown as it is when it is added. Only the admin port uses it. Loop's thread. */
#pragma once

#include "http/server/server.h"
#include "worker/pipeline.h"

enum snapshot_kind { SNAPSHOT_METRICS, SNAPSHOT_STATUS, SNAPSHOT_READY };
enum { SNAPSHOT_PIECE = 1 << 20 }; /* bytes that are joined at once */

struct snapshot;
struct snapshot *snapshot_new(enum snapshot_kind, struct http_call *); /* NULL: out of memory */
void snapshot_add(struct snapshot *, const struct trigger *, const struct pipeline_status *);
/* Does it show tracks? Then each, behind its Trigger, which was added last. behind: how long ago the oldest
 * record of it happened that is not done. */
bool snapshot_shows_tracks(const struct snapshot *);
void snapshot_add_track(struct snapshot *, const struct track_lag *, usec behind);
void snapshot_drain(struct snapshot *); /* READY: it is not, whatever the Triggers are */
/* After the last one. true: the call was answered, and the snapshot is freed; false: there is more to do. */
bool snapshot_answer(struct snapshot *);
void snapshot_free(struct snapshot *); /* without an answer; NULL is fine */
