#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "filter/filter.h"
#include "http/wire/url.h"
#include "options.h"
#include "source/timer/timer.h"
#include "transform/transform.h"
#include "worker/request.h"
#include "worker/sender.h"

enum { EXIT_FILTERED = 3, RECORD_MOST = 32 << 20 };

struct preview {
        const char *file, *record, *name, *secrets;
        const char *after;
        int64_t count;
        bool body_only;
        const struct trigger *trigger;
        const struct source_kind *kind;
        struct documents documents;
};

static int complain(const struct error *err)
{
        (void)fprintf(stderr, "sluice preview: %s\n", err->text);
        return 1;
}

/* ---- timers ------------------------------------------------------------- */

static int print_runs(const struct preview *p)
{
        const struct timer_spec *spec = p->trigger->source_spec;
        usec at = clock_wall(&system_clock);
        struct schedule schedule = { 0 };
        struct error err;

        if (p->after && (!time_parse(str_of(p->after), &at) || at < 0))
                return usage_error("preview",
                                   "--after wants a time since 1970, such as 2026-01-31T08:00:00Z");
        if (timer_schedule(spec, NULL, &schedule, &err) < 0)
                return complain(&err);
        for (int64_t i = 0; i < p->count; i++) {
                BUF_AT_END struct buf text = BUF_INIT(64);

                at = schedule_next(&schedule, at);
                if (at == USEC_NEVER)
                        break;
                time_format(&text, at);
                (void)printf("%s\n", text.p ? text.p : "");
        }
        schedule_done(&schedule);
        return 0;
}

/* ---- a record ----------------------------------------------------------- */

static int read_record(struct preview *p, const struct node **document, struct error *err)
{
        BUF_AT_END struct buf text = BUF_INIT(RECORD_MOST), report = BUF_INIT((size_t)1 << 20);
        struct problems problems = { 0 };
        int result;

        if (buf_read_stream(&text, strcmp(p->record, "-") == 0 ? "/dev/stdin" : p->record, err) < 0)
                return -1;
        result = yaml_parse(&p->documents, buf_view(&text), &problems);
        problems_format(&problems, p->record, &report);
        problems_done(&problems);
        if (result < 0 || p->documents.n != 1 || p->documents.roots[0]->kind != NODE_MAP)
                return error_set(err, ERROR_INVALID, "%s%s", report.n ? report.p : p->record,
                                 report.n ? "" : " must hold one record, as a JSON object");
        *document = p->documents.roots[0];
        return 0;
}

static int filtered(const struct preview *p, const struct record *r, bool *out, struct error *err)
{
        BUF_AT_END struct buf document = BUF_INIT(BUF_DEFAULT_MAX), why = BUF_INIT(4096);
        CLEANUP(filter_freep) struct filter *f = NULL;
        bool matches = true;
        struct writer w;

        *out = false;
        if (!p->trigger->filter)
                return 0;
        writer_init(&w, &document);
        p->kind->shape->describe(r, &w);
        if (filter_new(&f, str_of(p->trigger->filter->pattern), err) < 0 ||
            filter_match(f, buf_view(&document), &matches, err) < 0)
                return -1;
        if (matches)
                return 0;
        filter_explain(f, buf_view(&document), &why);
        (void)fprintf(stderr, "filtered: %s\nthe filter sees: %s\n", why.p ? why.p : "",
                      document.p ? document.p : "");
        *out = true;
        return 0;
}

/* ---- the transform ------------------------------------------------------ */

struct waiting {
        struct task task;
        struct loop *loop;
        struct transform *transform;
        struct transform_result result;
        struct buf *out;
};

static void on_result(struct task *t, usec now UNUSED)
{
        struct waiting *w = CONTAINER_OF(t, struct waiting, task);

        if (!transform_take(w->transform, &w->result))
                return;
        buf_reset(w->out);
        if (!w->result.failed)
                buf_str(w->out, w->result.output);
        loop_stop(w->loop);
}

static int transformed(const struct preview *p, struct buf *body, struct error *err)
{
        const struct transform_spec *spec = p->trigger->transform;
        struct waiting w = { .task = { .turn = on_result }, .out = body };
        struct transform_config config = { .program = spec ? spec->jq : NULL,
                                           .timeout = spec ? spec->timeout : 0,
                                           .output_max = BUF_DEFAULT_MAX };
        int result = -1;

        if (!spec)
                return 0;
        if (loop_new(&w.loop, err) < 0)
                return -1;
        config.loop = w.loop;
        if (transform_new(&w.transform, &config, &w.task, err) == 0) {
                transform_submit(w.transform, 1, buf_view(body));
                loop_run(w.loop);
                result = w.result.failed ? -1 : 0;
                if (w.result.failed)
                        *err = w.result.error;
        }
        (void)transform_free(w.transform);
        loop_forget(w.loop, &w.task);
        (void)loop_free(w.loop);
        return result < 0 ? error_wrap(err, "the transform's failure is final") : 0;
}

/* ---- the request -------------------------------------------------------- */

static int print_request(const struct preview *p, struct request_maker *m, struct record *r,
                         struct error *err)
{
        BUF_AT_END struct buf body = BUF_INIT(BUF_DEFAULT_MAX), headers = BUF_INIT(1 << 20);
        const struct delivery_spec *d = p->trigger->delivery;
        struct url url;

        request_body(m, &r, 1, &body);
        if (transformed(p, &body, err) < 0)
                return -1;
        request_constant_headers(m, &headers);
        request_headers(m, &r, 1, &headers);
        if (access_preview(p->trigger, p->secrets, &headers, err) < 0)
                return -1;
        if (body.failed || headers.failed)
                return error_memory(err);
        if (url_parse(str_of(m->sink), &url, err) < 0)
                return -1;
        if (!p->body_only)
                (void)printf("%s %s\nHost: " STR_FMT "\nUser-Agent: sluice\n", delivery_methods[d->method],
                             m->sink, STR_ARG(url.authority));
        for (struct str rest = p->body_only ? (struct str){ 0 } : buf_view(&headers); rest.n;) {
                struct str line = str_cut(&rest, '\n');

                (void)printf(STR_FMT "\n", STR_ARG(str_trim(line)));
        }
        if (!p->body_only)
                (void)printf("Content-Length: %zu\n\n", body.n);
        (void)fwrite(body.p, 1, body.n, stdout);
        if (!body.n || body.p[body.n - 1] != '\n')
                (void)printf("\n");
        return 0;
}

/* The sink's URL, or the one that a reference most likely resolves to in a cluster. */
static void sink_url(const struct trigger *t, struct buf *b)
{
        const struct sink_ref *ref = t->sink->ref;

        if (!ref) {
                buf_text(b, t->sink->uri);
                return;
        }
        buf_printf(b, "http://%s.%s.svc", ref->name, ref->namespace_ ? ref->namespace_ : t->namespace_);
        if (ref->port > 0 && ref->port != 80)
                buf_printf(b, ":%" PRId64, ref->port);
        buf_text(b, t->sink->uri ? t->sink->uri : "/");
}

static int show(struct preview *p)
{
        static const struct node nothing = { .kind = NODE_MAP };
        BUF_AT_END struct buf url = BUF_INIT(8192);
        const struct node *document = &nothing;
        struct record *r = NULL;
        struct request_maker m;
        struct error err;
        bool out = false;
        int result;

        sink_url(p->trigger, &url);
        if (url.failed || (p->record && read_record(p, &document, &err) < 0))
                return url.failed ? 1 : complain(&err);
        if (!p->kind->shape->sample) {
                (void)error_set(&err, ERROR_INVALID, "a %s source has no sample records", p->kind->name);
                return complain(&err);
        }
        if (p->kind->shape->sample(p->trigger, document, clock_wall(&system_clock), &r, &err) < 0) {
                if (p->record)
                        (void)error_wrap(&err, "%s", p->record);
                return complain(&err);
        }
        request_maker_init(&m, p->trigger, p->kind->shape, &system_clock, url.p);
        result = filtered(p, r, &out, &err);
        if (result == 0 && !out)
                result = print_request(p, &m, r, &err);
        request_maker_done(&m);
        p->kind->shape->sample_free(r);
        return result < 0 ? complain(&err) : out ? EXIT_FILTERED : 0;
}

static int run(struct preview *p)
{
        BUF_AT_END struct buf report = BUF_INIT((size_t)16 << 20);
        struct triggers all = { 0 };
        struct error err;
        int result = 1;

        if (triggers_load(&all, p->file, source_types(), source_kinds_n, &report, &err) < 0) {
                if (report.n)
                        (void)fwrite(report.p, 1, report.n, stderr);
                else
                        (void)complain(&err);
        } else if (!(p->trigger = triggers_find(&all, p->name, &err))) {
                (void)error_wrap(&err, "%s", p->file);
                (void)complain(&err);
        } else {
                p->kind = trigger_source(p->trigger);
                result = p->kind == &timer_source && !p->record ? print_runs(p) : show(p);
        }
        documents_done(&p->documents);
        triggers_done(&all);
        return result;
}

static const struct option_spec options[] = {
        OPTION(TEXT, "file", struct preview, file, .letter = 'f', .value = "FILE", .help = "The Trigger."),
        OPTION(TEXT, "name", struct preview, name, .value = "NAME",
               .help = "Which one, where the file holds several."),
        OPTION(TEXT, "record", struct preview, record, .value = "FILE",
               .help = "A sample record, -: standard input: the JSON object that a filter sees "
                       "(docs/filter.md). What is left out gets likely values; a member that it has not is "
                       "an "
                       "error."),
        OPTION(FLAG, "body", struct preview, body_only, .help = "Print the body alone."),
        OPTION(TEXT, "secrets", struct preview, secrets, .value = "DIR",
               .help = "Where the Secrets are that the Trigger names: files DIR/NAME/KEY. Without it their "
                       "places are shown."),
        OPTION(INT, "count", struct preview, count, .value = "N", .min = 1, .max = 10000,
               .help = "Timers without a record: how many runs to show. Default: 5."),
        OPTION(TEXT, "after", struct preview, after, .value = "TIME",
               .help = "Timers without a record: show runs after that time (RFC 3339). Default: now."),
};
static const struct usage usage = {
        .name = "preview",
        .text = "Shows the request that a function would get for a sample record: method, URL, headers and "
                "body, exactly as it would be sent. Nothing is "
                "sent. For a timer without a record it shows the next runs. Exit code 0: shown; 1: it would "
                "fail; 2: wrong usage; 3: the filter leaves the "
                "record out, and why stands on standard error.",
        .options = options,
        .options_n = COUNT_OF(options)
};

int cmd_preview(int argc, char **argv)
{
        struct preview p = { .count = 5 };
        struct strings rest;
        int result = options_parse(&usage, argc, argv, &p, &rest);

        free(rest.list);
        if (result < 0 && !p.file)
                result = usage_error("preview", "needs -f FILE");
        return result < 0 ? run(&p) : result;
}
