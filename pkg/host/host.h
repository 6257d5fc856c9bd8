/* The host of a process: what `run`, `worker` and `replay` assemble once, and any number of pipelines in it
 * that are added, replaced and removed while it runs. It owns the HTTP client, the listener, the admin
 * server, the places where positions are kept, and its Triggers; in a cluster it says in each Trigger's
 * status what becomes of it, and what befalls its source in Kubernetes events. Loop's thread. */
#pragma once

#include "worker/gate.h"
#include "worker/pipeline.h"

struct host;
struct kube_client;

struct host_config {
        const struct clock *clock;
        const char *secrets; /* the folder of Secrets, NAME/KEY; NULL: none */
        const char *admin;   /* ADDRESS:PORT; NULL: nowhere */
        /* Where positions are kept that no broker keeps: a folder, or the cluster. Neither: nowhere, for
         * sources that keep none. */
        const char *state;
        struct kube_client *kube;
        const char *pod;                       /* our name in the cluster; with kube */
        const struct gate_host_config *listen; /* opened with the first that needs it; NULL: nowhere */
        struct task *observer;                 /* made ready when something changed; NULL: nobody looks */
};

/* How a Trigger is run; borrowed while it is. */
struct host_options {
        const char *sink;        /* the absolute URL events go to */
        const char *dead_letter; /* the absolute URL of dead letters; NULL: the Trigger's own, if any */
        const char *instance;    /* a stable name of this worker among its Trigger's; NULL: none */
        bool ending;             /* only take back what the source made outside */
        const struct source_kind *kind; /* NULL: the Trigger's own, with its spec */
        const void *source_spec;        /* the kind's */
};

/* The state of a Trigger. */
struct host_entry {
        const struct trigger *trigger;
        bool runs;           /* there is a pipeline, or there will be one in a moment */
        bool waits;          /* it has not had its turn to start yet */
        const char *failure; /* why it, or what it is to become, could not be started; NULL: it could */
        uint64_t changes;    /* counts what the status shows, over all pipelines that it had */
        struct pipeline_status status; /* as it is shown: pipeline_shown */
};

int host_new(struct host **, struct loop *, const struct host_config *, struct error *) MUST_CHECK;
/* Once host_stopped, or before anything was set. NULL is fine. */
struct host *host_free(struct host *);

/* Adds a Trigger, or replaces the one of its namespace and name: that one's requests may finish by give_up_at
 * (monotonic), then the new one starts. Where two may run beside each other (push.h) the new one serves at
 * once, and the requests of the old one end by their own time-outs; where it can't be started, the old one
 * goes on serving. Takes the Trigger, whatever comes. One that is suspended is known, and does nothing. After
 * a failure it is known too, with the reason, and tried again: after a second, then ever less often, up to
 * once a minute. The others run. */
int host_set(struct host *, struct trigger *, const struct host_options *, usec give_up_at,
             struct error *) MUST_CHECK;
/* The same, but soon: in the order in which they came, a few milliseconds' worth in each pass of the loop, so
 * that thousands hold up nothing that runs. What is wanted or removed meanwhile replaces what has not had its
 * turn. Failures are logged. An error: out of memory. */
int host_want(struct host *, struct trigger *, const struct host_options *, usec give_up_at,
              struct error *) MUST_CHECK;
/* That have not had their turn, or wait for the end of the one that has their uid; the observer hears of the
 * last. */
size_t host_waiting(const struct host *);
/* For a Trigger that can't be run here: it is shown as failed, with this reason. Takes the Trigger. If one of
 * its name runs, that one goes on. */
int host_refuse(struct host *, struct trigger *, const char *why, struct error *) MUST_CHECK;
/* Its paths are free at once, and the rest ends in its turn. One that is unknown is fine. */
void host_remove(struct host *, const char *namespace_, const char *name, usec give_up_at);
/* It could not be started. */
bool host_failed(const struct host *, const char *namespace_, const char *name);
const struct trigger *host_find(const struct host *, const char *namespace_, const char *name);

/* Sources that read stop at once. Those that are reached by requests go on while clients may still have our
 * address: for linger, then until no new connection has come for quiet, but no longer than linger_most (0:
 * linger). Requests in flight may then take grace. */
struct host_end {
        usec linger, quiet, linger_most, grace;
};
void host_stop(struct host *, const struct host_end *);
bool host_stopped(const struct host *); /* nothing runs any more */
/* And after host_stop all clients have the whole response, or the grace is over. Five seconds after that it
 * has ended in any case: a source whose peer is silent may not be able to stop. Then host_stopped stays
 * false, and the host can't be freed: the process must end without that. What was given up is in the log. */
bool host_ended(const struct host *);
bool host_drained(const struct host *); /* all sources are at their end, and their records settled */
/* In the order in which they were set first. */
void host_each(const struct host *, void (*)(void *cookie, const struct host_entry *), void *cookie);
/* The next so many of them, and then it begins again. true: there are more. Those that come and go meanwhile
 * may be left out. */
bool host_each_some(struct host *, size_t most, void (*)(void *cookie, const struct host_entry *),
                    void *cookie);

uint16_t host_admin_port(const struct host *);
uint16_t host_listen_port(const struct host *); /* 0: it does not listen */
