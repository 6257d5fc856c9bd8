/* Inside pkg/delivery: how many requests a sink is trusted with, and how fast. One per sink, shared by all
 * its lanes. No I/O, no clock; owned by the engine.
 *
 * The limit starts at `initial`, rises with what is accepted (by one each until the threshold, then by two a
 * window: additive increase) and falls to seven tenths when the sink says it has too much, at most once per
 * round trip (multiplicative decrease). Answers that take much longer than they used to lower it by a tenth.
 * When nothing is accepted any more the circuit opens: one request at a time, after a pause that doubles;
 * what follows the outage may double twice a second, so that a thousand lanes come back over seconds. */
#pragma once

#include "base/bucket.h"
#include "base/random.h"

struct flow_config {
        uint32_t initial, most;         /* requests at once */
        usec pause_initial, pause_most; /* of an open circuit */
        /* events a second, and how many at once after a rest; rate 0: no limit */
        int64_t rate, burst;
};

struct flow {
        struct flow_config config;
        double limit, threshold;
        double before; /* the limit when the sink began to refuse */
        double ramp;   /* after an outage no limit above it; 0: no outage */
        usec ramp_at;  /* it doubles then */
        usec epoch;    /* the last decrease: requests sent before it don't count again */
        usec paused_until;
        unsigned failed, opened; /* refusals since the last acceptance; pauses in a row */
        bool overloaded;
        usec latency, baseline;    /* smoothed; the lowest of late. 0: not known */
        usec lowest, lowest_until; /* of the present span of a minute */
        int64_t paid_until;        /* the rate's bucket */
};

void flow_init(struct flow *, const struct flow_config *, usec now);
/* May another request be sent, with that many under way? */
bool flow_allows(const struct flow *, uint32_t in_flight, usec now);
void flow_sent(struct flow *, uint32_t events, usec now);
void flow_accepted(struct flow *, uint32_t in_flight, usec sent_at, usec now);
/* retry_after: what the sink asked for, already bounded; 0: nothing. */
void flow_refused(struct flow *, struct random *, usec sent_at, usec retry_after, usec now);
/* When flow_allows may turn true by time alone; USEC_NEVER: it is true, or only an answer can change it. */
usec flow_deadline(const struct flow *, usec now);
/* the circuit: a whole window was refused, and nothing was accepted since */
bool flow_is_open(const struct flow *);
/* nothing may be sent for a time: the sink asked for it, or the circuit is open */
bool flow_paused(const struct flow *, usec now);
/* It holds back: the circuit is open, or the limit under half of what it was before the sink refused. */
bool flow_throttles(const struct flow *, usec now);
