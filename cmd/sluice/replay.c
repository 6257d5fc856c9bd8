#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "host/host.h"
#include "options.h"
#include "source/kafka/kafka.h"
#include "source/replay/replay.h"
#include "table.h"

static const usec DRAIN = 10 * USEC_SEC, DRAW = 250 * USEC_MSEC, REPORT = 10 * USEC_SEC;

struct replay {
        const char *file, *name, *letters, *pattern, *sink, *secrets, *group;
        int64_t rate;
        struct loop *loop;
        struct host *host;
        struct pipeline_status status; /* the latest that was seen */
        struct task task;
        struct trigger *trigger, **place; /* place: where it stands among those loaded */
        struct replay_topic_spec topic;
        struct replay_report report;
        struct replay_file_spec letters_file;
        struct rate_spec limit;
        struct filter_spec filter;
        char group_name[300];
        bool terminal, stopping, interrupted, complete;
        usec started, next_show;
        int64_t most_lag; /* the total number of letters, as far as known */
};

/* ---- progress ----------------------------------------------------------- */

static void show(struct replay *r, const struct pipeline_status *s, usec now)
{
        uint64_t done = s->stats.accepted + s->stats.filtered + s->stats.dropped + s->stats.dead_lettered;
        double seconds = (double)MAX_OF(now - r->started, (usec)1) / USEC_SEC;
        char bar[31] = "";

        if (s->lag >= 0)
                r->most_lag = MAX_OF(r->most_lag, s->lag + (int64_t)done);
        if (r->terminal && r->most_lag > 0) {
                size_t filled = (size_t)((int64_t)(sizeof(bar) - 1) * MIN_OF((int64_t)done, r->most_lag) /
                                         r->most_lag);

                memset(bar, '.', sizeof(bar) - 1);
                memset(bar, '#', filled);
        }
        (void)fprintf(stderr, "%s%s%s%" PRIu64 " sent", r->terminal ? "\r\033[K" : "", bar, *bar ? " " : "",
                      s->stats.accepted);
        if (r->most_lag > 0)
                (void)fprintf(stderr, " of %" PRId64, r->most_lag);
        (void)fprintf(stderr, ", %.0f/s", (double)done / seconds);
        if (s->stats.filtered)
                (void)fprintf(stderr, ", %" PRIu64 " filtered", s->stats.filtered);
        if (s->stats.dead_lettered + s->stats.dropped)
                (void)fprintf(stderr, ", %" PRIu64 " given up again",
                              s->stats.dead_lettered + s->stats.dropped);
        if (s->delivery != DELIVERY_IDLE)
                (void)fprintf(stderr, "  %s: %.100s", pipeline_delivery_name(s->delivery), s->delivery_text);
        else if (s->source != SOURCE_CONNECTED && s->source_text[0])
                (void)fprintf(stderr, "  %s: %.100s", source_state_name(s->source), s->source_text);
        (void)fprintf(stderr, r->terminal && !r->stopping ? "" : "\n");
}

static void on_refused(void *cookie UNUSED, const char *text)
{
        (void)fprintf(stderr, "sluice replay: refused: %s\n", text);
}
static void on_note(void *cookie UNUSED, const char *text)
{
        (void)fprintf(stderr, "sluice replay: %s\n", text);
}

/* The last line: the totals. */
static void sum_up(struct replay *r, const struct pipeline_status *s)
{
        uint64_t done = s->stats.accepted + s->stats.filtered + s->stats.dropped + s->stats.dead_lettered;
        int64_t there = r->letters ? (int64_t)r->report.letters : r->most_lag;

        (void)fprintf(stderr, "sluice replay: sent %" PRIu64, s->stats.accepted);
        if (s->stats.filtered)
                (void)fprintf(stderr, ", passed over %" PRIu64, s->stats.filtered);
        if (s->stats.dead_lettered + s->stats.dropped)
                (void)fprintf(stderr, ", given up again %" PRIu64, s->stats.dead_lettered + s->stats.dropped);
        (void)fprintf(stderr, ", refused %" PRIu64, r->report.refusals);
        if (r->letters || there > 0)
                (void)fprintf(stderr, ", left %" PRId64,
                              MAX_OF(there - (int64_t)(done + r->report.refusals), (int64_t)0));
        (void)fprintf(stderr, "\n");
}

static void stop(struct replay *r)
{
        if (r->stopping)
                return;
        r->stopping = true;
        host_stop(r->host, &(struct host_end){ .grace = DRAIN });
}

static void on_signal(void *cookie, int number UNUSED)
{
        struct replay *r = cookie;

        if (r->stopping)
                _exit(130);
        r->interrupted = true;
        stop(r);
}

static void look(void *cookie, const struct host_entry *e) { ((struct replay *)cookie)->status = e->status; }

static void observe(struct task *t, usec now)
{
        struct replay *r = CONTAINER_OF(t, struct replay, task);
        struct pipeline_status s;

        host_each(r->host, look, r);
        s = r->status;
        if (r->stopping ? host_ended(r->host) : host_stopped(r->host)) {
                show(r, &s, now);
                sum_up(r, &s);
                loop_stop(r->loop);
                return;
        }
        if (!r->stopping && (host_drained(r->host) || s.source == SOURCE_FAILED)) {
                r->complete = s.source != SOURCE_FAILED;
                if (s.source == SOURCE_FAILED)
                        (void)fprintf(stderr, "sluice replay: %s\n", s.source_text);
                stop(r);
        } else if (!r->stopping && now >= r->next_show) {
                show(r, &s, now);
                r->next_show = now + (r->terminal ? DRAW : REPORT);
        }
        loop_arm(r->loop, t, MIN_OF(r->next_show, now + 50 * USEC_MSEC));
}

/* ---- the pipeline ------------------------------------------------------- */

/* Letters are sent one by one, and are not filtered again. */
static void adapt(struct replay *r)
{
        struct trigger *t = r->trigger;

        t->delivery->batch->max_messages = 1;
        t->delivery->partial_failures = false;
        if (t->event->format == FORMAT_CLOUDEVENTS_BATCH)
                t->event->format = FORMAT_CLOUDEVENTS_STRUCTURED;
        if (r->rate) {
                r->limit = (struct rate_spec){ r->rate, 1 };
        } else if (t->delivery->rate_limit)
                r->limit = *t->delivery->rate_limit;
}

static int choose_letters(struct replay *r, struct host_options *c, struct error *err)
{
        const struct dead_letter_spec *dead = r->trigger->delivery->dead_letter;

        if (r->letters) {
                r->letters_file.path = r->letters;
                r->letters_file.report = &r->report;
                c->kind = &replay_file_source;
                c->source_spec = &r->letters_file;
                return 0;
        }
        if (!dead || !dead->kafka)
                return error_set(
                        err, ERROR_INVALID,
                        "the Trigger has no deadLetter.kafka: say where the letters are with --letters=FILE");
        (void)snprintf(r->group_name, sizeof(r->group_name), "%.250s", r->group ? r->group : "");
        if (!r->group)
                (void)snprintf(r->group_name, sizeof(r->group_name), "sluice.%s.%s.replay",
                               r->trigger->namespace_, r->trigger->name);
        r->topic.report = &r->report;
        r->topic.kafka = (struct kafka_spec){ .cluster = dead->kafka->cluster,
                                              .topics = { &dead->kafka->topic, 1 },
                                              .consumer_group = r->group_name,
                                              .start_position = KAFKA_EARLIEST,
                                              .fetch_bytes = (int64_t)8 << 20 };
        c->kind = &replay_topic_source;
        c->source_spec = &r->topic;
        return 0;
}

static int start(struct replay *r, struct error *err)
{
        const struct host_config config = { .clock = &system_clock,
                                            .secrets = r->secrets,
                                            .observer = &r->task };
        struct host_options options = { .sink = r->sink                 ? r->sink
                                                : r->trigger->sink->ref ? NULL
                                                                        : r->trigger->sink->uri };

        if (!options.sink)
                return error_set(
                        err, ERROR_INVALID,
                        "spec.sink.ref names a Service of a cluster: say where it is with --sink=URL");
        if (choose_letters(r, &options, err) < 0 || loop_new(&r->loop, err) < 0 ||
            host_new(&r->host, r->loop, &config, err) < 0 ||
            loop_signal(r->loop, SIGTERM, on_signal, r, err) < 0 ||
            loop_signal(r->loop, SIGINT, on_signal, r, err) < 0)
                return -1;
        r->started = loop_now(r->loop);
        return host_set(r->host, TAKE(*r->place), &options, 0, err);
}

static int run(struct replay *r)
{
        struct rate_spec *own_rate = r->trigger->delivery->rate_limit;
        struct filter_spec *own_filter = r->trigger->filter;
        struct error err;
        int result = 0;

        adapt(r);
        r->filter.pattern = str_dup(str_of(r->pattern));
        r->trigger->delivery->rate_limit = r->limit.events_per_second ? &r->limit : NULL;
        r->trigger->filter = r->pattern ? &r->filter : NULL;
        signals_block();
        if (start(r, &err) < 0) {
                (void)fprintf(stderr, "sluice replay: %s\n", err.text);
                result = 1;
        } else {
                r->terminal = isatty(STDERR_FILENO);
                loop_ready(r->loop, &r->task);
                loop_run(r->loop);
                result = r->interrupted ? 130 : r->complete && r->report.refusals == 0 ? 0 : 1;
                if (!host_stopped(r->host))
                        end_at_once(result ? result
                                           : 1); /* a source that hangs can't be freed, and saved nothing */
        }
        r->trigger->delivery->rate_limit = own_rate;
        r->trigger->filter = own_filter;
        (void)host_free(r->host);
        if (r->loop)
                loop_forget(r->loop, &r->task);
        (void)loop_free(r->loop);
        free(r->filter.pattern);
        return result;
}

static int load(struct replay *r)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)16 << 20);
        struct triggers all = { 0 };
        struct error err;
        int result = 1;

        if (triggers_load(&all, r->file, source_types(), source_kinds_n, &report, &err) < 0)
                (void)fprintf(stderr, report.n ? "%s" : "sluice replay: %s\n",
                              report.n ? report.p : err.text);
        else if ((r->trigger = triggers_find(&all, r->name, &err))) {
                for (r->place = all.list; *r->place != r->trigger; r->place++)
                        ;
                result = run(r);
        } else
                (void)fprintf(stderr, "sluice replay: %s: %s\n", r->file, err.text);
        triggers_done(&all);
        return result;
}

static const struct option_spec options[] = {
        OPTION(TEXT, "file", struct replay, file, .letter = 'f', .value = "FILE",
               .help = "The Trigger whose events these were: its sink, format, transform and delivery are "
                       "used."),
        OPTION(TEXT, "name", struct replay, name, .value = "NAME",
               .help = "Which one, where the file holds several."),
        OPTION(TEXT, "letters", struct replay, letters, .value = "FILE",
               .help = "Dead letters, one JSON object a line; -: standard input. Default: the topic of the "
                       "Trigger's deadLetter.kafka."),
        OPTION(TEXT, "group", struct replay, group, .value = "NAME",
               .help = "The consumer group that keeps how far a topic was replayed. Default: "
                       "sluice.NAMESPACE.NAME.replay."),
        OPTION(INT, "rate", struct replay, rate, .value = "N", .min = 1, .max = 1000000,
               .help = "Letters a second at most. Default: the Trigger's rateLimit."),
        OPTION(TEXT, "filter", struct replay, pattern, .value = "PATTERN",
               .help = "Only letters that match this event pattern (docs/filter.md), over the letter itself. "
                       "The others are passed over."),
        OPTION(TEXT, "sink", struct replay, sink, .value = "URL",
               .help = "Where they go. Default: the Trigger's sink."),
        OPTION(TEXT, "secrets", struct replay, secrets, .value = "DIR",
               .help = "Where the Secrets are that the Trigger names: files DIR/NAME/KEY."),
};
static const struct usage usage = {
        .name = "replay",
        .text = "Sends dead letters again, once, until there are no more. What the function does not accept "
                "is met as the Trigger says. How far it went in a "
                "topic is kept in a consumer group, of a file in FILE.replayed, so that it can be "
                "interrupted. What can't be sent as it was is refused: of a file nothing "
                "is sent then, of a topic the others are, and the group's place stays before it. Exit code "
                "0: all were sent, passed over or given up again as the "
                "Trigger asks; 1: it failed, or some were refused; 2: wrong usage.",
        .options = options,
        .options_n = COUNT_OF(options)
};

int cmd_replay(int argc, char **argv)
{
        struct replay r = { .task = { .turn = observe },
                            .report = { .refused = on_refused, .note = on_note } };
        struct strings rest;
        int result = options_parse(&usage, argc, argv, &r, &rest);

        free(rest.list);
        if (result < 0 && !r.file)
                result = usage_error("replay", "needs -f FILE");
        return result < 0 ? load(&r) : result;
}
