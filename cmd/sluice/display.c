#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/random.h"
#include "http/server/server.h"
#include "json/writer.h"
#include "options.h"

/* How the function behaves; changed by POST /-/behave. */
struct behaviour {
        int64_t status, percent;
        usec delay, until, retry_after;
};

struct kept {
        char *id;
        struct buf body, head; /* head: "name\0value\0" pairs */
        usec time;
        int status;
};
struct waiting {
        struct waiting *next;
        struct task task;
        struct display *display;
        struct http_call *call;
        int status;
};

struct display {
        struct loop *loop;
        struct http_server *server;
        struct random random;
        struct behaviour behaviour;
        bool quiet, headers;
        const char *answer; /* the body of a 200 */
        uint64_t received, accepted;
        struct kept *kept; /* a ring of the last keep accepted events */
        int64_t keep, most;
        struct buf scratch;
        bool ending;
        struct waiting *waiting;
        const char *listen, *port_file;
};

static struct str query_of(const struct http_message *m, struct str *path)
{
        struct str rest = buf_view(&m->target);

        *path = str_cut(&rest, '?');
        return rest;
}

static void print_event(struct display *d, const struct http_message *m, int status)
{
        struct str id = http_message_header(m, STR("X-Sluice-Event-Id")), body = buf_view(&m->body);
        size_t shown = MIN_OF(body.n, (size_t)300);
        time_t now = (time_t)(clock_wall(&system_clock) / USEC_SEC); /* time() may be a timer tick behind */
        struct tm local;
        char clock[16];

        if (d->quiet)
                return;
        (void)localtime_r(&now, &local);
        (void)strftime(clock, sizeof(clock), "%H:%M:%S", &local);
        /* Text from outside is printed without its control characters. */
        buf_reset(&d->scratch);
        writer_escape(&d->scratch, id);
        buf_text(&d->scratch, "  ");
        for (size_t i = 0; i < shown; i++)
                buf_char(&d->scratch, (unsigned char)body.p[i] < ' ' || body.p[i] == 0x7f ? ' ' : body.p[i]);
        if (shown < body.n)
                buf_printf(&d->scratch, "… (%zu bytes)", body.n);
        (void)printf("%s  %d  " STR_FMT "\n", clock, status, STR_ARG(buf_view(&d->scratch)));
        (void)fflush(stdout);
}

static void keep_event(struct display *d, const struct http_message *m, int status)
{
        struct kept *k;

        if (!d->keep)
                return;
        k = &d->kept[(d->received - 1) % (uint64_t)d->keep];
        free(k->id);
        k->id = str_dup(http_message_header(m, STR("X-Sluice-Event-Id")));
        k->body.max = (size_t)8 << 20;
        buf_reset(&k->body);
        buf_str(&k->body, buf_view(&m->body));
        k->head.max = 65536;
        buf_reset(&k->head);
        if (d->headers)
                buf_str(&k->head, buf_view(&m->head));
        k->time = clock_wall(&system_clock);
        k->status = status;
}

static void answer_event(struct display *d, struct http_call *call, int status)
{
        BUF_AT_END struct buf headers = BUF_INIT(256);

        if (status != 200 && d->behaviour.retry_after)
                buf_printf(&headers, "Retry-After: %lld\r\n",
                           (long long)(d->behaviour.retry_after / USEC_SEC));
        if (status == 200)
                http_call_reply(call, 200, STR("application/json"), buf_view(&headers), str_of(d->answer));
        else
                http_call_reply(call, status, STR("text/plain"), buf_view(&headers), STR("told to fail"));
        if (d->most && d->accepted >= (uint64_t)d->most && !d->ending) {
                d->ending = true;
                loop_stop(d->loop);
        }
}

static void waiting_end(struct waiting *w)
{
        for (struct waiting **at = &w->display->waiting; *at; at = &(*at)->next)
                if (*at == w) {
                        *at = w->next;
                        break;
                }
        loop_forget(w->display->loop, &w->task);
        free(w);
}

static void on_delay(struct task *t, usec now UNUSED)
{
        struct waiting *w = CONTAINER_OF(t, struct waiting, task);
        struct display *d = w->display;
        struct http_call *call = w->call;
        int status = w->status;

        waiting_end(w);
        answer_event(d, call, status);
}

static void on_gone(void *cookie UNUSED, struct http_call *call)
{
        struct waiting *w = http_call_get(call);

        if (w)
                waiting_end(w);
}

static void on_event(struct display *d, struct http_call *call)
{
        const struct http_message *m = http_call_message(call);
        struct behaviour *b = &d->behaviour;
        int status = 200;
        struct waiting *w;

        if (b->until && loop_now(d->loop) >= b->until)
                *b = (struct behaviour){ .status = 200, .percent = 100 };
        if (b->status != 200 && random_below(&d->random, 100) < (uint64_t)b->percent)
                status = (int)b->status;
        d->received++;
        d->accepted += status == 200;
        print_event(d, m, status);
        keep_event(d, m, status);
        if (!b->delay || !(w = calloc(1, sizeof(*w)))) {
                http_call_set(call, NULL);
                answer_event(d, call, status);
                return;
        }
        *w = (struct waiting){
                .next = d->waiting, .task = { .turn = on_delay }, .display = d, .call = call, .status = status
        };
        d->waiting = w;
        http_call_set(call, w);
        loop_arm(d->loop, &w->task, loop_now(d->loop) + b->delay);
}

/* POST /-/behave?status=503&percent=100&delay=5ms&for=20s&retry-after=2s */
static void on_behave(struct display *d, struct http_call *call, struct str query)
{
        struct behaviour b = { .status = 200, .percent = 100 };
        bool fine = true;
        usec span = 0;

        while (query.n && fine) {
                struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');

                if (str_is(name, "status"))
                        fine = str_to_int64(value, &b.status) && b.status >= 200 && b.status <= 599;
                else if (str_is(name, "percent"))
                        fine = str_to_int64(value, &b.percent) && b.percent >= 0 && b.percent <= 100;
                else if (str_is(name, "delay"))
                        fine = duration_parse(value, &b.delay);
                else if (str_is(name, "for"))
                        fine = duration_parse(value, &span);
                else if (str_is(name, "retry-after"))
                        fine = duration_parse(value, &b.retry_after);
                else
                        fine = false;
        }
        http_call_set(call, NULL);
        if (!fine) {
                http_call_reply(call, 400, STR("text/plain"), (struct str){ 0 },
                                STR("expected "
                                    "/-/"
                                    "behave?status=200-599&percent=0-100&delay=DURATION&for=DURATION&retry-"
                                    "after=DURATION\n"));
                return;
        }
        b.until = span ? loop_now(d->loop) + span : 0;
        d->behaviour = b;
        http_call_reply(call, 200, STR("text/plain"), (struct str){ 0 }, STR("ok\n"));
}

static void write_headers(const struct buf *head, struct writer *w)
{
        struct str rest = { head->p, head->n }, name, value;

        writer_key(w, STR("headers"));
        writer_object(w);
        while (http_head_next(&rest, &name, &value)) {
                writer_key(w, name);
                writer_string(w, value);
        }
        writer_object_end(w);
}

/* GET /-/events?after=N: the events after the Nth, as JSON, as far as --keep still has them. */
static void on_events(struct display *d, struct http_call *call, struct str query)
{
        BUF_AT_END struct buf out = BUF_INIT((size_t)512 << 20);
        struct str after_text = query;
        uint64_t kept = MIN_OF(d->received, (uint64_t)d->keep), first = d->received - kept;
        struct writer w;
        int64_t after = 0;

        (void)str_cut(&after_text, '=');
        if (str_to_int64(after_text, &after) && after > 0)
                first = MAX_OF(first, (uint64_t)after);
        writer_init(&w, &out);
        writer_object(&w);
        writer_member_int(&w, "received", (int64_t)d->received);
        writer_member_int(&w, "accepted", (int64_t)d->accepted);
        writer_key(&w, STR("events"));
        writer_array(&w);
        for (uint64_t i = first; i < d->received; i++) {
                const struct kept *k = &d->kept[i % (uint64_t)d->keep];

                writer_object(&w);
                writer_member_int(&w, "number", (int64_t)i + 1);
                writer_member_text(&w, "id", k->id ? k->id : "");
                writer_member_int(&w, "status", k->status);
                writer_member_int(&w, "timeMicros", k->time);
                writer_member_string(&w, "body", buf_view(&k->body));
                if (d->headers)
                        write_headers(&k->head, &w);
                writer_object_end(&w);
                if (out.n > (size_t)8 << 20)
                        break; /* the client gets the rest with another after= */
        }
        writer_array_end(&w);
        writer_object_end(&w);
        http_call_reply(call, 200, STR("application/json"), (struct str){ 0 }, buf_view(&out));
}

static void handle(void *cookie, struct http_call *call)
{
        struct display *d = cookie;
        const struct http_message *m = http_call_message(call);
        struct str path, query = query_of(m, &path);

        http_call_set(call, NULL);
        if (str_is(path, "/-/behave") && m->method == HTTP_POST)
                on_behave(d, call, query);
        else if (str_is(path, "/-/events") && m->method == HTTP_GET)
                on_events(d, call, query);
        else if (str_is(path, "/-/healthy"))
                http_call_reply(call, 200, STR("text/plain"), (struct str){ 0 }, STR("ok\n"));
        else if (m->method == HTTP_POST || m->method == HTTP_PUT)
                on_event(d, call);
        else
                http_call_reply(call, 405, STR("text/plain"), STR("Allow: POST, PUT\r\n"),
                                STR("send an event by POST\n"));
}

static void on_signal(void *cookie, int number UNUSED) { loop_stop(((struct display *)cookie)->loop); }

static int serve(struct display *d)
{
        struct http_server_config config = { .address = d->listen,
                                             .head_max = 65536,
                                             .body_max = (size_t)8 << 20,
                                             .max_connections = 20000,
                                             .handle = handle,
                                             .gone = on_gone,
                                             .cookie = d };
        struct error err;

        if (loop_new(&d->loop, &err) < 0 || http_server_new(&d->server, d->loop, &config, &err) < 0 ||
            loop_signal(d->loop, SIGTERM, on_signal, d, &err) < 0 ||
            loop_signal(d->loop, SIGINT, on_signal, d, &err) < 0) {
                (void)fprintf(stderr, "sluice display: %s\n", err.text);
                return 1;
        }
        if (d->port_file && write_port(d->port_file, http_server_port(d->server), &err) < 0) {
                (void)fprintf(stderr, "sluice display: %s\n", err.text);
                return 1;
        }
        if (!d->port_file)
                (void)printf("listening on port %u\n", http_server_port(d->server));
        (void)fflush(stdout);
        loop_run(d->loop);
        return 0;
}

static const struct option_spec options[] = {
        OPTION(TEXT, "listen", struct display, listen, .value = "ADDRESS:PORT",
               .help = "Where to listen; port 0 picks a free one. Default: :8080."),
        OPTION(TEXT, "port-file", struct display, port_file, .value = "FILE",
               .help = "Write the port to this file (or named pipe), instead of showing it."),
        OPTION(INT, "status", struct display, behaviour.status, .value = "CODE", .min = 200, .max = 599,
               .help = "Answer events with this status. Default: 200."),
        OPTION(INT, "percent", struct display, behaviour.percent, .value = "N", .min = 0, .max = 100,
               .help = "Answer only so many in a hundred with --status. Default: 100."),
        OPTION(DURATION, "delay", struct display, behaviour.delay, .value = "DURATION",
               .help = "Take so long for each event. Default: 0."),
        OPTION(DURATION, "retry-after", struct display, behaviour.retry_after, .value = "DURATION",
               .help = "Send Retry-After with failures. Default: none."),
        OPTION(INT, "events", struct display, most, .value = "N", .min = 1, .max = INT64_MAX,
               .help = "End after so many accepted events. Default: go on."),
        OPTION(INT, "keep", struct display, keep, .value = "N", .min = 0, .max = 10000000,
               .help = "Keep the last N events for GET /-/events. Default: 1000."),
        OPTION(TEXT, "answer", struct display, answer, .value = "TEXT",
               .help = "The body of accepted answers, in the shape that an API wants. Default: "
                       "{\"statusCode\":200,\"body\":\"\"}."),
        OPTION(FLAG, "headers", struct display, headers, .help = "Keep headers too, for GET /-/events."),
        OPTION(FLAG, "quiet", struct display, quiet, .letter = 'q', .help = "Print no events."),
};
static const struct usage usage = {
        .name = "display",
        .text = "An example function: accepts every event that comes by POST and prints it. It can be told "
                "to fail, delay or throttle, at start or by POST "
                "/-/behave?status=503&percent=100&delay=5ms&for=20s&retry-after=2s; GET /-/events shows what "
                "came.",
        .options = options,
        .options_n = COUNT_OF(options)
};

int cmd_display(int argc, char **argv)
{
        struct display d = { .behaviour = { .status = 200, .percent = 100 },
                             .keep = 1000,
                             .listen = ":8080",
                             .answer = "{\"statusCode\":200,\"body\":\"\"}" };
        struct strings rest;
        int r = options_parse(&usage, argc, argv, &d, &rest);

        free(rest.list);
        if (r >= 0)
                return r;
        signals_block();
        d.scratch.max = 65536;
        random_init(&d.random, random_seed());
        d.kept = calloc((size_t)d.keep + 1, sizeof(*d.kept));
        r = d.kept ? serve(&d) : 1;
        (void)http_server_free(d.server);
        while (d.waiting)
                waiting_end(d.waiting);
        (void)loop_free(d.loop);
        for (int64_t i = 0; d.kept && i < d.keep; i++) {
                free(d.kept[i].id);
                buf_done(&d.kept[i].body);
                buf_done(&d.kept[i].head);
        }
        free(d.kept);
        buf_done(&d.scratch);
        return r;
}
